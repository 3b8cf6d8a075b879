"""Guidance on a pipeline: installation, the proof of coverage, and removal."""
