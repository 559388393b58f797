"""Answers -> scores, failure labels and flags."""
