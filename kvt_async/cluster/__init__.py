"""Shards of a group on the nodes of a Ray cluster. Loaded only where a config has `cluster`."""
