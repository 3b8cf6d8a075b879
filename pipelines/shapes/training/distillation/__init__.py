"""The student of a distillation, its paths and its negative prompts."""
