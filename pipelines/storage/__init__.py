"""Files in a folder or in the cloud."""
