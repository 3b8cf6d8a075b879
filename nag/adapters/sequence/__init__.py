"""The adapters of models that have text and image in one sequence."""
