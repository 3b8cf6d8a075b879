"""Measurements of the models and of the farm, one command each."""
