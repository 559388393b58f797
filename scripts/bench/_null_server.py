"""A server that does nothing but answer: what a client can reach against it is the client's own ceiling.

    python scripts/bench/_null_server.py [--port N]

Prints its port. `max_tokens` in the request's body says how many tokens to stream; they come unpaced, in one write.
"""

import argparse
import asyncio
import json
import re
from typing import ClassVar, cast

_MAX_TOKENS = re.compile(rb'"max_tokens":\s*(\d+)')
_LENGTH = re.compile(rb"(?i)content-length:\s*(\d+)")
_WRITE = 16_384  # bytes per HTTP chunk: many events in one, as a server that is ahead of its client sends them


def reply(tokens: int) -> bytes:
    """The whole HTTP reply: role, one chunk a token, finish, usage, [DONE]."""

    def event(**fields: object) -> bytes:
        return (
            b"data: "
            + json.dumps({"id": "cmpl-0", "object": "chat.completion.chunk", "model": "null"} | fields).encode()
            + b"\n\n"
        )

    def delta(content: dict[str, str], finish: str | None = None) -> bytes:
        return event(choices=[{"index": 0, "delta": content, "finish_reason": finish}])

    counts = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    body = delta({"role": "assistant", "content": ""}) + b"".join(delta({"content": " word"}) for _ in range(tokens))
    body += delta({}, "stop") + event(choices=[], usage=counts) + b"data: [DONE]\n\n"
    parts = [body[at : at + _WRITE] for at in range(0, len(body), _WRITE)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in parts) + b"0\r\n\r\n"


class Null(asyncio.Protocol):
    """Knows just enough HTTP to see where a request ends."""

    replies: ClassVar[dict[int, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parts: list[bytes] = []
        self.size = self.needed = 0

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        self.size += len(data)
        if self.size < self.needed:
            return
        whole = b"".join(self.parts)
        end = whole.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(whole[:end])
        self.needed = end + 4 + (int(length.group(1)) if length else 0)
        if self.size < self.needed:
            return
        self.parts, self.size, self.needed = [], 0, 0
        found = _MAX_TOKENS.search(whole, end)
        tokens = int(found.group(1)) if found else 1
        if tokens not in self.replies:
            self.replies[tokens] = reply(tokens)
        self.transport.write(self.replies[tokens])


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Null, "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(main(parser.parse_args().port))
