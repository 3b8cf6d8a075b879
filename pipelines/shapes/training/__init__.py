"""The training of the Shapes models."""
