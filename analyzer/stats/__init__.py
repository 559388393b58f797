"""Numbers only: tests, intervals, bootstrap. No SQL, and no words for a reader."""
