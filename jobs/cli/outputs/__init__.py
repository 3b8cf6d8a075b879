"""The commands over an output: they read and change what lies in a store."""
