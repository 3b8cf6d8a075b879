"""From committed clips to the figures of a benchmark, with their intervals."""
