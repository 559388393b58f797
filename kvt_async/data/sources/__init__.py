"""Outside rows to Example."""
