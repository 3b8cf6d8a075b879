"""The adapters of models in which text and image attend to one another."""
