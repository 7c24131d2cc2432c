"""Shapes, the procedural miniature benchmark."""
