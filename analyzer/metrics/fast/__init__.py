"""Metrics over whole columns: the same scores as one by one, sooner."""
