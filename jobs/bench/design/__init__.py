"""The clips of a benchmark: models, settings, tasks and parameter slices."""
