"""Measures of finished clips: similarity to texts, preference, answers, distances, motion."""
