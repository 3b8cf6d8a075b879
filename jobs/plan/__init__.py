"""The plan of a run: done, quarantined and pending clips, and the devices that they need."""
