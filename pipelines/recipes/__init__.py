"""Models put together from published weights."""
