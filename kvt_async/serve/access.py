"""Who may ask: no web page that a browser on this machine has open, whatever name it gave the server."""

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web

from kvt_async.serve.api_errors import ApiError, shown


class Access:
    """Checks the Host and the Origin of a request.

    What comes in on a loopback address must ask for a name of this machine: another name was pointed here by somebody
    else (DNS rebinding). On other addresses the server can't know its names, so any may be asked for. An Origin, which
    browsers alone send, must be the server's own.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        """`names`: what the server may be called beside this machine's own names, for example its --host."""
        own = socket.gethostname().lower()
        self._names = {own, own.partition(".")[0], *(name.lower().strip("[]") for name in names)}

    def check(self, http: web.Request) -> None:
        """Raises ApiError: 400 for a Host that is missing or comes twice, 403 for a stranger's."""
        hosts = http.headers.getall("Host", [])
        if len(hosts) > 1 or (not hosts and http.version >= (1, 1)):
            raise ApiError("A request has one Host header", code="invalid_host")
        host = hosts[0] if hosts else ""
        if host and _arrived_on_loopback(http) and not self._is_ours(_name(host)):
            raise ApiError(
                f"The Host {shown(host)} is not this server's; ask for 127.0.0.1 or localhost, or start the server "
                "with --host NAME",
                status=403,
                kind="permission_error",
                code="host_not_allowed",
            )
        for origin in http.headers.getall("Origin", []):
            if not host or _authority(origin) != host.lower():
                raise ApiError(
                    f"The Origin {shown(origin)} may not use this server: web pages are not answered",
                    status=403,
                    kind="permission_error",
                    code="origin_not_allowed",
                )

    def _is_ours(self, name: str) -> bool:
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _authority(origin: str) -> str | None:
    """host:port of an http(s) origin, as a Host header has it."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def _name(host: str) -> str:
    """A Host header without its port, brackets and the dot that may end a name."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def _arrived_on_loopback(http: web.Request) -> bool:
    address = http.transport.get_extra_info("sockname") if http.transport is not None else None
    if not isinstance(address, tuple):
        return False
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
