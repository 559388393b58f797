"""Outside rows to canonical examples, prompts, bins, manifest."""
