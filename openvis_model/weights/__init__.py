"""Checkpoints, and pretrained weights in the formats of other libraries."""
