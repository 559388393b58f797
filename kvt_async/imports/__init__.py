"""Runs that other tools made, taken into a group: their answers and scores, judged as kvt's own are."""
