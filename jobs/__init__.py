"""The batch: from a manifest to committed clips."""
