"""When the kernel received the bytes of a read, however late we came to fetch them (Linux, asyncio's own loop).

A socket asks for SO_TIMESTAMPNS and reads with recvmsg. The stamp belongs to the last segment that a read returned, so
for anything earlier in the same read it is an upper bound. It is on the clock of the day; how long ago it was is taken
on that clock at once and subtracted from our monotonic one, so only a step of the clock within that moment could spoil
it, and what that gives (a negative or absurd age) is thrown away. uvloop reads by itself: no stamps there.
"""

import socket
import struct
import sys
import time
from asyncio import BaseTransport
from typing import Any

SO_TIMESTAMPNS = 35  # of SOL_SOCKET; Python has no name for it
MAX_AGE_NS = 60_000_000_000
_ANCILLARY = socket.CMSG_SPACE(16) if hasattr(socket, "CMSG_SPACE") else 0
_TIMESPEC = struct.Struct("@qq")


class StampedSocket(socket.socket):
    """`stamp_ns`: of the newest read, on time.perf_counter_ns; None: the kernel gave none. Only while `watched`: a read
    with a stamp costs a microsecond more."""

    stamp_ns: int | None = None
    watched: bool = True

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if not self.watched:
            return super().recv(bufsize, flags)
        data, ancillary, _, _ = self.recvmsg(bufsize, _ANCILLARY, flags)
        self._note(ancillary)
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As asyncio's TLS calls it: a whole buffer."""
        if not self.watched:
            return super().recv_into(buffer, nbytes, flags)
        n, ancillary, _, _ = self.recvmsg_into([buffer], _ANCILLARY, flags)
        self._note(ancillary)
        return n

    def _note(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        self.stamp_ns = None
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
                seconds, ns = _TIMESPEC.unpack(data)
                age_ns = time.time_ns() - (seconds * 1_000_000_000 + ns)
                if 0 <= age_ns < MAX_AGE_NS:
                    self.stamp_ns = time.perf_counter_ns() - age_ns


def socket_factory(addr_info: tuple[Any, ...]) -> socket.socket:
    """For TCPConnector: a stamped socket where that is to be had, else a plain one."""
    family, kind, protocol, *_ = addr_info
    if sys.platform == "linux":
        stamped = StampedSocket(family, kind, protocol)
        try:
            stamped.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError:
            stamped.close()
        else:
            return stamped
    return socket.socket(family, kind, protocol)


def stamped_socket(transport: BaseTransport) -> StampedSocket | None:
    """The stamped socket under a transport, if its reads go through it."""
    wrapped = getattr(transport.get_extra_info("socket"), "_sock", None)  # asyncio shows a socket through a wrapper
    return wrapped if isinstance(wrapped, StampedSocket) else None
