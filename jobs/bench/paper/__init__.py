"""The table of the NAG paper: prompts with and without guidance, rendered, scored, compared."""
