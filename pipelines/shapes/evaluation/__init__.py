"""Measurements of the Shapes models."""
