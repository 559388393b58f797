"""A manifest at every level: plan, requests, places, pipeline."""
