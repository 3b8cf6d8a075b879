"""Families with text attentions of their own: the text stays as it is, block after block."""
