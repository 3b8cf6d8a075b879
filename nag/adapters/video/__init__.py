"""The adapters of families that make videos alone."""
