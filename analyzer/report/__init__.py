"""Persisted results → charts, report.md, report.html. Reads only; nothing here computes a statistic."""
