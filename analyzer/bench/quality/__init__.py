"""Answers of a bench that are scored: what they lose under load, beside the same prompts unloaded."""
