"""A LoRA file: which layers it changes, by which names, with which settings."""
