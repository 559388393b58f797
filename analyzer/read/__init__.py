"""Facts in SQLite -> frames: runs, outcomes, evidence and drift of the server."""
