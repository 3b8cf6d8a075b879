"""The path that a sampler takes, and a store of the states that it passes."""
