"""Every clip of an output as one value, for the commands and pages that show or choose clips."""
