"""The settings of a run, each group with its limits."""
