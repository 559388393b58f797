"""What a parent and a sender process say to each other: Python objects over a pair of sockets that only they have.

Nothing of it is on disk, in an argument or in the environment, so it may hold what the config holds.
"""

import asyncio
import pickle
import socket
import struct
from collections.abc import Callable
from typing import Any

_SIZE = struct.Struct("!Q")


def first_message(end: socket.socket) -> Any:
    """What was sent first, waited for without an event loop: it may say which loop to use. None: nobody is there."""
    (size,) = _SIZE.unpack(_exactly(end, _SIZE.size) or _SIZE.pack(0))
    return pickle.loads(_exactly(end, size)) if size else None


def _exactly(end: socket.socket, size: int) -> bytes:
    """So many bytes, or none where the other end is gone before."""
    data = bytearray()
    while len(data) < size:
        if not (part := end.recv(size - len(data))):
            return b""
        data += part
    return bytes(data)


class Wire:
    """One end of it. Messages arrive in order; None: the other end is gone, however that came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.create_task(self._read(), name="wire")
        self.on_end: Callable[[], None] = lambda: None

    @classmethod
    async def over(cls, end: socket.socket) -> "Wire":
        return cls(*await asyncio.open_connection(sock=end))

    def send(self, message: object) -> None:
        """Put a message on its way. To an end that is gone nothing is sent: `receive` says so."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        if not self._writer.is_closing():
            self._writer.write(_SIZE.pack(len(data)) + data)

    async def receive(self) -> Any:
        """The next message; None, again and again, once the other end is gone."""
        message = await self._inbox.get()
        if message is None:
            self._inbox.put_nowait(None)
        return message

    async def close(self) -> None:
        """Send what is on its way, then end."""
        self._task.cancel()
        try:
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            pass  # it was gone already

    async def _read(self) -> None:
        try:
            while True:
                (size,) = _SIZE.unpack(await self._reader.readexactly(_SIZE.size))
                self._inbox.put_nowait(pickle.loads(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            self._inbox.put_nowait(None)
            self.on_end()
