"""Configuration files that come with nagfarm; no code."""
