"""The upkeep of an output: its garbage, its pruning, and the audit of its clips."""
