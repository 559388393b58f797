"""The lean transport: HTTP/1.1 for streams from an OpenAI-compatible server, and nothing else.

Plain and TLS, IPv4 and IPv6, keep-alive, chunked, counted and close-delimited replies. No proxies, no cookies, no
upgrades, no compression, no redirects. Same exchanges as aiohttp gives, at a fraction of its cost per request and read.
"""

import asyncio
import ipaddress
import socket
import ssl
from functools import partial
from time import perf_counter_ns
from typing import Any

from aiohappyeyeballs import start_connection

from kvt_async.contract.errors import ErrorType
from kvt_async.contract.settings import EngineSettings
from kvt_async.engine.transport.exchange import Exchange
from kvt_async.engine.transport.kernel_stamps import socket_factory
from kvt_async.engine.transport.lean_connection import LeanConnection, Outbox
from kvt_async.engine.transport.local_lacks import cause_here
from kvt_async.engine.transport.protocol import KEEPALIVE_S, Target, tls_text
from kvt_async.records import Headers

RESOLVED_S = 10.0  # how long a name's addresses are believed
NEXT_ADDRESS_S = 0.25  # before the next address of a name is tried beside the first
Address = tuple[Any, ...]


class LeanTransport:
    """A pool of LeanConnections. Use inside one running loop; close it."""

    def __init__(self, engine: EngineSettings, tls: ssl.SSLContext | bool) -> None:
        self._connect_s, self._tls = engine.timeouts.connect_s, tls
        self._origins: dict[Target, _Origin] = {}
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._loop)

    async def exchange(
        self, exchange: Exchange, target: Target, body: bytes, *, fresh: bool, headers: Headers = ()
    ) -> None:
        origin = self._origins.get(target)
        if origin is None:
            origin = self._origins[target] = _Origin(target, self._loop)
        try:
            connection = None if fresh else origin.take()
            if fresh:
                origin.drop_idle()  # one pooled connection was found dead: its idle siblings are no better
            if connection is None:
                connection = await self._connect(origin, exchange)
            if connection is not None:
                try:
                    await connection.begin(exchange, origin.head(len(body), headers), body)
                finally:
                    connection.release()
                if connection.reusable:
                    origin.idle.append(connection)
        finally:
            exchange.marks.end_ns = exchange.arrived_ns if exchange.complete else perf_counter_ns()

    async def close(self) -> None:
        for origin in self._origins.values():
            origin.drop_idle()
        await asyncio.sleep(0)  # an aborted connection is closed a turn later

    async def _connect(self, origin: "_Origin", exchange: Exchange) -> LeanConnection | None:
        """A new connection; None: the exchange says why there is none."""
        where = f"{origin.host}:{origin.port}"
        try:
            async with asyncio.timeout(self._connect_s):
                addresses = await origin.addresses()
                sock = await start_connection(
                    addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, loop=self._loop, socket_factory=socket_factory
                )
                try:
                    _, connection = await self._loop.create_connection(
                        partial(LeanConnection, self._loop, self._outbox),
                        sock=sock,
                        ssl=self._context() if origin.tls else None,
                        server_hostname=origin.host if origin.tls else None,
                    )
                except BaseException:
                    sock.close()
                    raise
            return connection
        except TimeoutError:
            exchange.broke(ErrorType.CONNECT_TIMEOUT, "no connection in time")
        except ssl.SSLError as error:
            exchange.broke(ErrorType.TLS, tls_text(error))
        except socket.gaierror as error:
            exchange.ours = cause_here(error)
            exchange.broke(ErrorType.CONNECTION, f"the name {origin.host} can't be resolved")
        except OSError as error:
            exchange.ours = cause_here(error)
            exchange.broke(ErrorType.CONNECTION, f"can't connect to {where}: {error.strerror or error}")
        return None

    def _context(self) -> ssl.SSLContext:
        if not isinstance(self._tls, ssl.SSLContext):
            self._tls = ssl.create_default_context()
        return self._tls


class _Origin:
    """One target: its request head, its addresses, its idle connections (newest last)."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        url = target.url
        self.tls = url.scheme == "https"
        self.host, self.port = url.raw_host or "", url.port or (443 if self.tls else 80)
        self.idle: list[LeanConnection] = []
        self._loop = loop
        self._resolved: asyncio.Task[list[Address]] | None = None
        self._resolved_at = 0.0
        self._target = target
        self._head = self._encoded(())

    def head(self, length: int, headers: Headers) -> bytes:
        """Of a request whose body has `length` bytes, with headers of its own."""
        return b"%b%d\r\n\r\n" % (self._encoded(headers) if headers else self._head, length)

    def _encoded(self, own: Headers) -> bytes:
        url = self._target.url
        headers = {"Host": url.host_port_subcomponent or self.host} | {
            name.title() if name.lower() == "host" else name: value
            for name, value in self._target.with_headers(own).items()
        }
        lines = [f"POST {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\nContent-Length: ").encode()

    def take(self) -> LeanConnection | None:
        """The idle connection that was used last: the others may go stale in peace."""
        oldest = self._loop.time() - KEEPALIVE_S
        while self.idle:
            connection = self.idle.pop()
            if connection.reusable and connection.idle_since >= oldest:
                return connection
            connection.close()
        return None

    def drop_idle(self) -> None:
        while self.idle:
            self.idle.pop().close()

    async def addresses(self) -> list[Address]:
        """Raises OSError. A name is looked up once for everybody who waits for it."""
        if (literal := _literal(self.host, self.port)) is not None:
            return [literal]
        now = self._loop.time()
        task = self._resolved
        if task is None or now - self._resolved_at > RESOLVED_S or (task.done() and not _succeeded(task)):
            lookup = self._loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            task = self._resolved = self._loop.create_task(_listed(lookup), name=f"resolve {self.host}")
            self._resolved_at = now
        return await asyncio.shield(task)


async def _listed(lookup: Any) -> list[Address]:
    return list(await lookup)


def _succeeded(task: "asyncio.Task[list[Address]]") -> bool:
    return not task.cancelled() and task.exception() is None


def _literal(host: str, port: int) -> Address | None:
    """The address that a host of digits is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    if address.scope_id is not None:
        return None
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)
