"""The attention processors that guide, one module for each architecture."""
