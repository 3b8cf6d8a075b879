"""A run watched from its store: what was read last, in a terminal, a log or JSON lines."""
