"""What a notebook opens: results with frames of their outcomes, answers, figures and scores by another metric."""
