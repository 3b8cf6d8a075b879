"""Times as people write them: durations, times of the day, time zones, dated outputs."""
