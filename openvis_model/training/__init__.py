"""Losses, objectives and starting points for training the method."""
