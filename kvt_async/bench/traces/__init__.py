"""Traces of what others served: read row by row, sent again."""
