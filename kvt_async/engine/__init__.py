"""Talks to servers; knows no database."""
