"""The running of a stage of a training: its device, its time, its log, its interruptions."""
