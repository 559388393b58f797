"""A small real model behind an OpenAI-compatible API, with a KV cache that really evicts."""
