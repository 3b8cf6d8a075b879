"""Scoring an output: what is left to score, one clip on one worker, and the figures of sets."""
