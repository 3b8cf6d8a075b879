"""The cost of a run: device-hours of its workers by model and stage, and their price."""
