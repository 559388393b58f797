"""A server that does nothing but answer, to find out what this client can do: `python -m kvt_async.bench.null_server`.

An OpenAI-like chat and completions endpoint on a bare asyncio protocol. A reply is `max_tokens` events of one word,
`pace.gap_ms` apart (0: all at once); each event is one write, as a server with one token a step sends them.
"""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvt_async.contract.errors import ServerError

READY_S = 30
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(payload: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + json.dumps(payload).encode() + b"\n\n")


_WORD = {
    True: _event({"choices": [{"index": 0, "delta": {"content": " word"}}]}),
    False: _event({"choices": [{"index": 0, "text": " word"}]}),
}
_FINISH = {
    True: _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}),
    False: _event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}),
}


class NullProtocol(asyncio.Protocol):
    """One connection: requests in turn, replies by timer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._buffer = transport, b""
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            if len(self._buffer) < end + 4 + size:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
            self._answer(head.split(b" ", 2)[1].decode(), body)

    def _answer(self, path: str, body: bytes) -> None:
        if not path.endswith("/completions"):
            document = {"data": [{"id": "null-server"}]} if path.endswith("/models") else {"version": "null"}
            return self._whole(document)
        request = json.loads(body)
        n, chat = int(request.get("max_tokens") or 16), "messages" in request
        prompt = "".join(m["content"] for m in request["messages"]) if chat else request["prompt"]
        usage = {"prompt_tokens": -(-len(prompt) // 4), "completion_tokens": n}
        if not request.get("stream"):
            choice = {"message": {"content": " word" * n}} if chat else {"text": " word" * n}
            return self._whole({"choices": [{"index": 0, "finish_reason": "length", **choice}], "usage": usage})
        tail = _FINISH[chat] + _event({"choices": [], "usage": usage}) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self._transport.write(_HEAD)
        gap_s = float((request.get("pace") or {}).get("gap_ms", 0)) / 1000
        if gap_s <= 0:
            self._transport.write(_WORD[chat] * n + tail)
            return None
        return self._step(chat, n, self._loop.time(), gap_s, tail)

    def _step(self, chat: bool, left: int, due: float, gap_s: float, tail: bytes) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_WORD[chat] if left > 1 else _WORD[chat] + tail)
        if left > 1:
            self._loop.call_at(due + gap_s, self._step, chat, left - 1, due + gap_s, gap_s, tail)

    def _whole(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )


@contextmanager
def null_server() -> Iterator[str]:
    """Base URL of a null server in a process of its own, stopped at the end. Raises ServerError."""
    command = [sys.executable, "-m", "kvt_async.bench.null_server", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        url = re.search(r"http://\S+", process.stdout.readline())
        if url is None:
            process.wait(READY_S)
            raise ServerError("the null server did not start", where=" ".join(command[1:]))
        yield url.group(0)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def serve(port: int) -> None:
    """Listen on 127.0.0.1 and say where."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, ended.set)
    server = await loop.create_server(NullProtocol, "127.0.0.1", port, backlog=4096)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A server that does nothing but answer.")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    from kvt_async.engine.transport.local_lacks import raise_file_limit

    raise_file_limit()
    asyncio.run(serve(arguments.port))


if __name__ == "__main__":
    main()
