"""From a manifest file to clip specs, every fault named with its file and line."""
