"""The cost of a manifest of a million rows, and of an output of 100,000 clips."""
