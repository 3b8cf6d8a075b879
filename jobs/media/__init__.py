"""Frames to MP4 files, the proof that these decode, and pictures of clips."""
