"""Texts of a config that something else will read: URLs, headers, environment, paths. What it would refuse is refused
here, before anything is made or sent."""

import ipaddress
import re
from urllib.parse import urlsplit

LONGEST_URL, LONGEST_PATH, LONGEST_NAME = 4096, 3072, 255  # the last two in bytes: a path, a name in it
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset(
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer", "keep-alive"]
)
_URL = re.compile(r"https?://\S+", re.IGNORECASE)


def valid_url(url: str) -> str:
    """The URL. Raises ValueError unless it is http(s) with a host that can be looked up and a port that exists."""
    if len(url) > LONGEST_URL:
        raise ValueError(f"a URL has at most {LONGEST_URL} characters, not {len(url)}")
    if not _URL.fullmatch(url) or any(ord(char) < 33 or ord(char) == 127 for char in url):
        raise ValueError("write it as http://HOST:PORT/v1 or https://HOST/v1, without blanks")
    parts = urlsplit(url)  # raises ValueError itself for half of an IPv6 address
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the port of a URL is a number up to 65535") from None
    host = parts.hostname or ""
    if not host or not _is_host(host, bracketed="[" in parts.netloc):
        raise ValueError(f"{host!r} is no host name and no address" if host else "the URL names no host")
    return url


def _is_host(host: str, *, bracketed: bool) -> bool:
    try:
        if bracketed:
            return ipaddress.ip_address(host.partition("%")[0]).version == 6
        host.encode("idna")
    except ValueError:
        return False
    return re.search(r"[\s/\\<>^`{|}\"%]", host) is None


def valid_headers(headers: dict[str, str]) -> dict[str, str]:
    """The headers. Raises ValueError for one that can't be sent, or would say where a request ends or goes."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is no name of a header")
        if name.lower() in _FRAMING:
            raise ValueError(f"{name} is set by kvt itself: leave it out")
        if any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in value):
            raise ValueError(f"the value of {name} holds a line break or another control character")
    return headers


def valid_environment(env: dict[str, str]) -> dict[str, str]:
    """Variables of a process. Raises ValueError for a name that none can have."""
    for name in env:
        if not name or "=" in name:
            raise ValueError(f"{name[:100]!r} is no name of a variable")
    return env


def valid_path(path: str) -> str:
    """The path. Raises ValueError for one that is longer than file systems take."""
    size = len(path.encode("utf-8", "surrogateescape"))
    longest = max((len(part.encode("utf-8", "surrogateescape")) for part in path.split("/")), default=0)
    if size > LONGEST_PATH or longest > LONGEST_NAME:
        raise ValueError(
            f"a path has at most {LONGEST_PATH} bytes and {LONGEST_NAME} between two slashes, not {max(size, longest)}"
        )
    return path
