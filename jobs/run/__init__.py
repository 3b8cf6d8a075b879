"""One run: it renders one model after another, shows its progress and writes its summary."""
