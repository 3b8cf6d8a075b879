"""The upkeep of an output: its garbage, and the audit of its clips."""
