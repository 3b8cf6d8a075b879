"""Keys of a model's YAML that LTX models alone have."""
