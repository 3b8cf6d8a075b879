"""The Shapes world and the tiny Wan that answers prompts about it. docs/shapes.md describes both."""
