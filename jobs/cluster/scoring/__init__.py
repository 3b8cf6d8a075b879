"""Scoring on Ray: an actor around each worker, and the pool that keeps them busy."""
