"""One clip on several ranks: how a group of processes forms, renders and recovers."""
