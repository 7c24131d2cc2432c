"""Annotated videos and predictions in the file formats of benchmarks."""
