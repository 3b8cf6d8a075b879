"""Which clips a benchmark renders: models, settings, tasks and parameter slices."""
