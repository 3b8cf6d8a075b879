"""Tasks on the nodes of a cluster, one on each."""
