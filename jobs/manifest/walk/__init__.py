"""A walk over the rows of a manifest: the rows that it yields, and the seeds that it draws."""
