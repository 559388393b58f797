"""Joins engine and store: levels, plan, pipeline."""
