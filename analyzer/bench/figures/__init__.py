"""Frames of a bench -> its figures, each with an interval."""
