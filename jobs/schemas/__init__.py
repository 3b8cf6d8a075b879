"""JSON Schemas of the documents that people write and programs read, from their dataclasses."""
