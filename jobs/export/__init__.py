"""Committed clips as files on this machine, under their names."""
