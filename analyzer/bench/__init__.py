"""`kvt bench`, the analyzer's half: facts of stages -> rates, percentiles, knee, verdict, report."""
