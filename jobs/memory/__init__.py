"""The memory of clips on a card: what a plan refuses, what a worker checks, and what helps."""
