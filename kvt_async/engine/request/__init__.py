"""A prompt at a level -> the bytes of a request."""
