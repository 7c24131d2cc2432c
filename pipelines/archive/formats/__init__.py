"""Annotation formats that labels are exported to, a file each."""
