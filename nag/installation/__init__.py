"""Putting guidance on a pipeline, the proof of coverage, and taking everything off."""
