"""Decoding: the settings of autoencoders, their time and their pixels."""
