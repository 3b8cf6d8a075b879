"""How the diffusers pipelines of each architecture are loaded and driven."""
