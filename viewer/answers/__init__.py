"""Answers: all of a group in memory to be filtered, one beside full cache's, those that changed between two groups."""
