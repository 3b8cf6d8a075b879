"""Files of models as they lie on disk: YAML, JSON, safetensors headers, digests, places."""
