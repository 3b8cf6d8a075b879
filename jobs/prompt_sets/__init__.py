"""Prompt sets in the forms of the field, as manifests: objects, captions, pairs with a negative."""
