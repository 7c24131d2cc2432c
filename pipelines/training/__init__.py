"""Two-stage training on Ray Train."""
