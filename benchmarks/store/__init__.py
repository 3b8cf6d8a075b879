"""Upload and commit of clips, beside other S3 clients."""
