"""Training of the Shapes image models."""
