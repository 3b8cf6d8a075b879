"""The batch: from a manifest to committed clips. Its interface is the command line and the records."""
