"""Data sets: where annotated videos come from."""
