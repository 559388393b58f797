"""Scores -> derived rows: bins, budgets, series, verdicts."""
