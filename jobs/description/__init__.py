"""Descriptions of models, by which machines without weights plan: written and fetched."""
