"""One guided text cross-attention, and the way the negative prompt reaches it."""
