"""The adapters of video models in which text and video attend to one another."""
