"""The diffusers pipelines of each architecture: loading, calling, decoding."""
