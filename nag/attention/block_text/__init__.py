"""The way of the negative prompt into models that make their text anew inside each call."""
