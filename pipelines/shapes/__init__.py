"""The Shapes world and the tiny models trained on it: see docs/explanation/shapes.md."""
