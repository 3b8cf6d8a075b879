"""One module for each guidance formula."""
