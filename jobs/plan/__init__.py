"""Which clips of a manifest are done, quarantined and pending, and what they need."""
