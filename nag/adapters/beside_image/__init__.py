"""Models whose attentions have the keys and values of text and image side by side."""
