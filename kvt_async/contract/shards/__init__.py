"""A group in parts: what a shard is, which databases a group has, and which of two histories of a request holds."""
