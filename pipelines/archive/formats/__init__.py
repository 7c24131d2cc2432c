"""Annotation formats that labels are exported to, one module each."""
