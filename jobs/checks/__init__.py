"""The checks behind `nagfarm doctor`: of this machine, and of every node of a cluster."""
