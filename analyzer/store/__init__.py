"""Derived rows and files, each with the fingerprint of what it was made from."""
