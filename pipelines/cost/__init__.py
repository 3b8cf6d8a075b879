"""Operations, bytes and predicted times of groups of devices. Loads without torch."""
