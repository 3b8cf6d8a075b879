"""The negative prompt as further tokens of a sequence in which text and image are one."""
