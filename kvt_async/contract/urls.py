"""URLs: as they may be stored and shown, and as they are asked. A query of a base URL goes with every request."""

from urllib.parse import parse_qsl, urlsplit, urlunsplit


def public_url(url: str) -> str:
    """A URL without what may be secret in it: credentials and the query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def bare_url(url: str) -> str:
    """A URL as it is sent: without credentials, which go into a header, and without the fragment."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def url_under(base: str, path: str) -> str:
    """`path` ("/models") under a base URL, with the base's own query."""
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


def server_root(base: str) -> str:
    """A base URL without the /v1 at its end: where servers keep /metrics, /health and /version."""
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix("/v1")))


def query_values(url: str) -> list[tuple[str, str]]:
    """(name, value) of a URL's query, decoded."""
    return parse_qsl(urlsplit(url).query)
