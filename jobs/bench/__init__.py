"""Benchmarks that render through the farm itself, judge what came out, and report."""
