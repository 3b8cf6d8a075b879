"""The mappings in a model's YAML, and the pipeline classes that they are for."""
