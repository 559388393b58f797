"""What a transport is: one exchange over HTTP/1.1, whatever library moves the bytes."""

from asyncio import BaseTransport
from dataclasses import dataclass
from typing import Protocol

from multidict import CIMultiDict
from yarl import URL

from kvt_async.engine.transport.exchange import Exchange
from kvt_async.records import Headers

MOST_READ = 64 * 1024  # bytes of one read; asyncio takes a block of that size for each, whatever comes
KEEPALIVE_S = 4.0  # below uvicorn's 5 s, so that we close an idle connection before the server does
LINGER_S = 1.0  # after [DONE] the body should end; a server that forgets to is not waited for longer


def bound_reads(transport: BaseTransport) -> None:
    """Read MOST_READ at a time. A no-op for uvloop, which reads into one block of its own."""
    if hasattr(transport, "max_size"):
        transport.max_size = MOST_READ


def tls_text(error: BaseException) -> str:
    """What is wrong with a TLS connection; of a certificate that isn't trusted also where to name one that is."""
    verify = getattr(error, "verify_message", None)
    reason = verify or getattr(error, "reason", None) or error
    return f"TLS: {reason}" + ("; engine.ca_file names a certificate to trust" if verify else "")


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where requests go, and what every one of them carries. One object per endpoint and path."""

    url: URL
    headers: CIMultiDict[str]
    public: str  # the endpoint as it may be stored

    def with_headers(self, own: Headers) -> CIMultiDict[str]:
        """What a request with headers of its own carries: one of a name that is here already takes its place."""
        if not own:
            return self.headers
        headers = self.headers.copy()
        headers.update(own)
        return headers


class Transport(Protocol):
    """Fills exchanges. `aiohttp_transport` is the reference; `lean` must give the same attempts."""

    async def exchange(
        self, exchange: Exchange, target: Target, body: bytes, *, fresh: bool, headers: Headers = ()
    ) -> None:
        """Send `body`, under the target's headers and the request's own, and read the reply to its end; over a new
        connection if `fresh`.

        Raises nothing but bugs and CancelledError: what broke stands in the exchange.
        """
        ...

    async def close(self) -> None: ...
