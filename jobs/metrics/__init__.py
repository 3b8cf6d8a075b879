"""The metrics of a run, without the library that publishes them."""
