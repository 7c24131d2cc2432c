"""Files in a folder or on S3."""
