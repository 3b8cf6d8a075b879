"""S3 and folders behind one protocol."""
