"""Attention that diffusers lacks: exact, with log-sum-exp, and the first block cache."""
