"""The cost of guidance on one GPU, at the sizes that people render."""
