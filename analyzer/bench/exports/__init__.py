"""A stored bench -> files that other tools read."""
