"""The negative prompt as a text, and its place in a call."""
