"""One clip from request to commit, inside one process."""
