"""The progress of a run: what it has counted, and what its console and log show."""
