"""The Shapes world and the tiny Wan that answers prompts about it. docs/explanation/shapes.md describes both."""
