"""Which frames are refused as no clip."""
