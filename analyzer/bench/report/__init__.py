"""Figures of a bench -> verdict, tables, charts and pages."""
