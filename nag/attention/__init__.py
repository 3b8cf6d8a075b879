"""What one text attention computes, and how the negative prompt reaches it."""
