"""The benchmark of the driver: stand-in workers that sleep, and the schedule alone."""
