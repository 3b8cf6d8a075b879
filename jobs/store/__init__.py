"""S3 buckets and folders behind one protocol, and the errors that they raise."""
