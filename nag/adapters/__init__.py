"""One module for each kind of text attention."""
