"""The state machine of a run, without Ray, clocks or I/O."""
