"""The layout of an output: keys, records, the commit, the lease, garbage."""
