"""The texts of a table: its encoding, its separator, its cells and its columns of notes."""
