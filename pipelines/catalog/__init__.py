"""The YAML of a model, and its folder of weights. Loads without torch."""
