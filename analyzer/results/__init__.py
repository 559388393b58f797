"""Derived rows read back, typed, and what is said of them in words."""
