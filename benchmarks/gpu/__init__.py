"""What guidance costs on one GPU, at the sizes that people render."""
