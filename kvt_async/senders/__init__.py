"""Processes that send for one invocation (`limits.processes`): what each may send, and how they are talked to."""
