"""A run in virtual time: the schedule's own state machine on simulated workers."""
