"""URLs as they may be stored and shown."""

from urllib.parse import urlsplit, urlunsplit


def public_url(url: str) -> str:
    """A URL without what may be secret in it: credentials and the query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
