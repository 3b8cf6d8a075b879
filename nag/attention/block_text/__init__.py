"""Models that make something of their whole text: that of their blocks, or one vector."""
