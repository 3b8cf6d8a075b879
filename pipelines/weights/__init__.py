"""The weights of a loaded pipeline: on which device they are, and in how many bits."""
