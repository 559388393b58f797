"""A server that repeats a secret wherever a reply can hold one, and the forms in which a secret can be seen."""

import base64
import gzip
import html
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

from tests.servers.fault_server import chunk, delta, event, head, reply, usage

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda s: s,
    "JSON, every character": lambda s: "".join(f"\\u{ord(c):04x}" for c in s),
    "JSON in JSON": lambda s: "".join(f"\\\\u{ord(c):04X}" for c in s),
    "JSON": lambda s: json.dumps(s)[1:-1],
    "percent, what needs it": lambda s: quote(s, safe=""),
    "percent, every byte": lambda s: "".join(f"%{byte:02x}" for byte in s.encode()),
    "percent twice": lambda s: quote(quote(s, safe=""), safe=""),
    "HTML": html.escape,
    "HTML numbers": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "hexadecimal": lambda s: s.encode().hex(),
    "Base64": lambda s: base64.b64encode(s.encode()).decode(),
    "Base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "Base64 of more": lambda s: base64.b64encode(f"user:{s}, and so on".encode()).decode(),
    "mixed": lambda s: quote(s[:3]) + "".join(f"\\u{ord(c):04x}" for c in s[3:6]) + quote(s[6:]),
}
BEGINNING = 12  # characters of a secret that are not to be seen alone, where it was cut


def traces(secret: str) -> list[bytes]:
    """Bytes that give a secret away, wherever they are found."""
    whole = [form(secret) for name, form in FORMS.items() if name != "Base64 of more"]
    return sorted({text.encode() for text in (*whole, secret[:BEGINNING], secret[-BEGINNING:])})


def echoes(secret: str) -> dict[str, bytes]:
    """Raw HTTP replies to a chat request, each with the secret somewhere else; those that end with the connection
    close it."""
    half, escaped = len(secret) // 2, "".join(f"\\u{ord(c):04x}" for c in secret)
    first, second = secret[:half], secret[half:]
    end = event(delta(finish="stop")) + event("[DONE]")
    sse, plain = head(), head(200, "text/plain")

    def stream(*parts: bytes | dict[str, Any], ending: bytes = end) -> bytes:
        return sse + b"".join(part if isinstance(part, bytes) else event(part) for part in parts) + ending

    def tool(arguments: str) -> dict[str, Any]:
        return delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": arguments}}])

    def text(value: object) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"content": value}}]}

    def error(status: int, body: object, content_type: str = "application/json") -> bytes:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return head(status, content_type, length=len(data)) + data

    def whole(**message: object) -> bytes:
        return error(200, {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]})

    return {
        "text over deltas": stream(*(delta(c) for c in secret)),
        "text in Base64": stream(delta(FORMS["Base64"](secret))),
        "text that asks for escapes": stream(delta(escaped)),
        "reasoning over deltas": stream(*(delta(reasoning_content=c) for c in secret), delta("x")),
        "reasoning_details": stream(delta("x", reasoning_details=[{"text": secret}])),
        "refusal": stream(delta(refusal=first), delta(refusal=second)),
        "tool calls over deltas": stream(tool(first), tool(second)),
        "tool calls, then a broken stream": stream(tool(first), tool(second), ending=b""),
        "finish_reason": stream(delta("x"), delta(finish=secret)),
        "a long finish_reason": stream(delta("x"), delta(finish="y" * 90 + secret)),
        "text of another choice, then nonsense": stream(
            *({"choices": [{"index": 1, "delta": {"content": part}}]} for part in (first, second)), b"data: {\n\n"
        ),
        "cut by max_tokens": stream(
            delta("the key is " + secret[:-3]), event(delta(finish="length")) + event("[DONE]")
        ),
        "usage value": stream(delta("x"), usage(note=secret), end),
        "usage value, escaped": stream(
            delta("x"), b'data: {"choices":[],"usage":{"n":"' + escaped.encode() + b'"}}\n\n'
        ),
        "usage key": stream(delta("x"), usage(**{secret: 1}), end),
        "usage, beside half an emoji": stream(
            delta("x"), b'data: {"choices":[],"usage":{"n":"' + secret.encode() + b'","m":"\\ud83d"}}\n\n'
        ),
        "evidence": stream(delta("x"), usage(kv={"kept_fraction": secret, "more": {secret: [secret]}}), end),
        "id and model": stream({**delta("x"), "id": secret, "model": secret}),
        "error event": stream(delta("x"), {"error": {"message": f"no {secret}", "code": secret, "type": secret}}),
        "error event, escaped": stream(b'data: {"error":{"message":"' + escaped.encode() + b'"}}\n\n'),
        "error text": stream({"error": secret}),
        "named error event": sse + f"event: error\ndata: {secret}\n\n".encode(),
        "an event that is no JSON": stream(delta("x"), f"data: {{{secret}\n\n".encode()),
        "an event of another shape": stream({"choices": secret}),
        "content of another shape": stream(
            delta("x"), {"choices": [{"index": 0, "delta": {"content": {"a": secret}}}]}
        ),
        "comment, then nothing": sse + f": {secret}\n\n".encode(),
        "only [DONE]": stream({"id": secret, "choices": []}, ending=event("[DONE]")),
        "broken in its middle": sse + event(delta(first)) + event(delta(second))[:-8],
        "broken inside the secret": sse + event(delta(f"the key is {secret[:-3]}")),
        "broken inside its Base64": sse + event(delta(FORMS["Base64"](secret)[:-6])),
        "broken inside an escape": sse + b'data: {"choices":[{"index":0,"delta":{"content":"' + escaped[:-9].encode(),
        "broken chunk": head(chunked=True) + chunk(event(delta(first))) + f"zz{second}".encode(),
        "trailer": head(chunked=True) + chunk(reply("x")) + f"0\r\nX-T: {secret}\r\n\r\n".encode(),
        "header": head(headers={"X-Echo": secret, "X-Kept": secret}) + reply("x"),
        "status line": f"HTTP/1.1 200 {secret}\r\n\r\n".encode(),
        "no HTTP": f"Authorization: Bearer {secret}\r\n\r\n".encode(),
        "content type": head(200, f"text/{secret}") + b"x",
        "content encoding": head(headers={"Content-Encoding": secret}) + b"x",
        "gzip": head(500, "text/plain", headers={"Content-Encoding": "gzip"}) + gzip.compress(secret.encode()),
        "redirect": head(302, None, length=0, headers={"Location": f"http://elsewhere/?k={quote(secret)}"}),
        "JSON error": error(400, {"error": {"message": f"bad key {secret}", "param": secret}}),
        "JSON error, escaped": error(400, f'{{"error":{{"message":"{escaped}"}}}}'.encode()),
        "error at the cut of the evidence": error(500, b"x" * 190 + secret.encode(), "text/plain"),
        "error in Base64": error(500, f"Basic {FORMS['Base64 of more'](secret)}".encode(), "text/plain"),
        "HTML error": error(502, f"<p>{FORMS['HTML numbers'](secret)}</p>".encode(), "text/html"),
        "page under 200": plain + f"<html>{secret}".encode(),
        "whole": whole(
            content=f"it is {secret}", reasoning_content=secret, tool_calls=[{"function": {"name": secret}}]
        ),
        "whole, escaped": error(200, f'{{"choices":[{{"message":{{"content":"{escaped}"}}}}]}}'.encode()),
        "whole error": error(200, {"error": {"message": secret}}),
        "whole, odd": error(200, {"choices": [{"message": secret}]}),
        "Retry-After": head(429, None, length=0, headers={"Retry-After": secret}),
    }


def serve(listener: socket.socket, secrets: Sequence[str], sent: list[str]) -> None:
    """Answer until the listener is closed. Chat requests get every echo in turn, and a good answer between two, so that
    runs go on; pages hold the secrets too. `sent` collects the names of the replies."""
    replies = [echo for secret in secrets for echo in echoes(secret).items()]
    lock = threading.Lock()
    all_of_them = " ".join(secrets)
    escaped = "".join(f"\\u{ord(c):04x}" for c in all_of_them)
    pages = {
        "/v1/models": json.dumps({"data": [{"id": "m"}, *({"id": s} for s in secrets)]})[:-2]
        + f', {{"id":"{escaped}"}}]}}',
        "/version": json.dumps({"version": f"1.0 {all_of_them}", "server": FORMS["Base64"](all_of_them)}),
        "/props": json.dumps({"model_path": f"/models/{secrets[-1]}", "chat_template": "x" * 300 + all_of_them}),
        "/metrics": f'vllm:cache_config_info{{cache_dtype="{secrets[-1]}",num_gpu_blocks="1"}} 1.0\n',
    }

    def reply_to(method: str, path: str) -> bytes:
        if method != "POST":
            page = pages.get(path.partition("?")[0])
            body = (page or json.dumps({"detail": f"no {all_of_them}"})).encode()
            headers = {"Server": secrets[-1]}
            return head(200 if page else 404, "application/json", length=len(body), headers=headers) + body
        with lock:
            n = len(sent)
            name, raw = replies[n // 2 % len(replies)] if n % 2 else ("answer", head() + reply("a"))
            sent.append(name)
        return raw

    def one(conn: socket.socket) -> None:
        with conn, conn.makefile("rb") as lines:
            request = lines.readline().decode().split()
            length = 0
            while (line := lines.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            lines.read(length)
            if request:
                conn.sendall(reply_to(*request[:2]))

    with suppress(OSError):
        while True:
            threading.Thread(target=one, args=listener.accept()[:1], daemon=True).start()


@contextmanager
def echo_server(*secrets: str) -> Iterator[tuple[str, list[str]]]:
    """(base URL, names of the replies sent so far) of a server in threads of this process."""
    sent: list[str] = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        threading.Thread(target=serve, args=(listener, secrets, sent), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", sent
        listener.shutdown(socket.SHUT_RDWR)


def main(port: int, *secrets: str) -> None:
    """A launched server: it prints what it was started with, as servers do."""
    print("started as", sys.argv, dict(os.environ), flush=True)
    print(*(form(secret) for secret in secrets for form in FORMS.values()), file=sys.stderr, flush=True)
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        serve(listener, secrets, [])


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
