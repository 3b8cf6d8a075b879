"""From frames to an MP4, and the proof that it decodes."""
