"""Replies, pages and headers as no server should send them: a normal one with some of its parts replaced, in any
framing. Seeded, so that what failed can be sent again."""

import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

from tests.servers.fault_server import chunk, head


class Raw(str):
    """A piece of JSON as it is written, also what no JSON library writes."""

    __slots__ = ()


def nested(depth: int, opening: str = '{"a":', closing: str = "}") -> Raw:
    return Raw(opening * depth + "1" + closing * depth)


ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        -3,
        7,
        1.5,
        -0.0,
        2**31,
        2**53,
        2**63 - 1,
        2**63,
        2**64,
        Raw("9" * 400),
        Raw("-" + "9" * 400),
    ),
    *(Raw("1e308"), Raw("1e400"), Raw("NaN"), Raw("-Infinity"), Raw("0.1e-400"), Raw("9" * 5000)),
    *(
        "",
        " ",
        "x",
        "stop",
        "length",
        "error",
        "²",
        "9" * 5000,
        "500",
        "nan",
        "1e999",
        "é",
        "\u2028",
        "\x00",
        "\x1b[2J",
    ),
    *(
        Raw('"\\ud800"'),
        Raw('"\\ude00"'),
        Raw('"\\ud83d\\ude00"'),
        Raw('"a\\ud83d"'),
        "<script>",
        "=1+1",
        "try again in 1ms",
    ),
    *([], {}, [[]], [{}], {"a": None}, [1, 2], ["x"], {"\ud800": 1}, {"": ""}, {"error": {}}, {"message": "no"}),
    *(nested(20), nested(300), nested(1000), nested(1000, "[", "]"), nested(5000), nested(300, '{"error":', "}")),
    *(
        {"code": Raw("9" * 400)},
        {"retry_after": Raw("1e400")},
        {"text": "t", "type": "thinking"},
        {"seconds": Raw("9" * 400)},
    ),
)
KEYS = (
    *("error", "errors", "detail", "message", "code", "status", "type", "object", "usage", "choices", "index", "delta"),
    *("text", "content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal", "finish_reason"),
    *("x_groq", "base_resp", "timings", "kv", "prompt_tokens", "retry_after", "\ud800"),
)


def dump(value: Any) -> str:
    """JSON, with Raw pieces as they are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{dump(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value)


def changed(rng: random.Random, value: Any, chance: float) -> Any:
    """The value with parts replaced, left out, doubled or added."""
    if rng.random() < chance:
        return rng.choice(ODD)
    if isinstance(value, dict):
        out = {key: changed(rng, inner, chance) for key, inner in value.items() if rng.random() > chance / 3}
        return out | {rng.choice(KEYS): rng.choice(ODD)} if rng.random() < chance else out
    if isinstance(value, list):
        out_list = [changed(rng, inner, chance) for inner in value]
        return out_list * 2 if rng.random() < chance / 3 else out_list
    return value


def chunk_of(**delta: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }


COUNTED = {
    "prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 0}, "kv": {"kept_fraction": 1.0, "policy": "full"},
}  # fmt: skip
ENDED = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
CALL = {"index": 0, "id": "t", "function": {"name": "f", "arguments": "{}"}}
OLDER = {"name": "f", "arguments": '{"a": 1}'}
FAILED = {"error": {"message": "out of memory", "type": "server_error", "code": 500, "param": None}}
WHOLE = {
    "object": "chat.completion", "usage": COUNTED,
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Paris", "reasoning": "hm"}},
    ],
}  # fmt: skip


def stream_body(rng: random.Random, chance: float) -> bytes:
    events: list[Any] = [
        chunk_of(role="assistant", content=""),
        *(chunk_of(content=f"w{n} ") for n in range(rng.randrange(5))),
    ]
    calls = (
        chunk_of(tool_calls=[CALL]),
        chunk_of(tool_calls=[CALL | {"index": 1}, CALL]),
        chunk_of(function_call=OLDER),
    )
    extra = (chunk_of(reasoning_content="hm"), *calls, chunk_of(refusal="no"), FAILED)
    events += [one for one in extra if rng.random() < 0.1]
    events += [ENDED, {"choices": [], "usage": COUNTED}]
    if rng.random() < 0.1:
        rng.shuffle(events)
    eol = rng.choice(("\n", "\n", "\n", "\r\n", "\r"))
    lines = [f"data: {dump(changed(rng, event, chance))}{eol}{eol}" for event in events]
    if rng.random() < 0.9:
        lines.append(f"data: [DONE]{eol}{eol}")
    if rng.random() < chance * 3:
        odd = rng.choice(
            ("event: error\n", ": ping\n\n", "data:\n\n", "id: \x00\n", "retry: 9\n", "\ufeff", "data: {", "x" * 300)
        )
        lines.insert(rng.randrange(len(lines)), odd)
    return "".join(lines).encode("utf-8", "surrogatepass")


def body_of(rng: random.Random, chance: float) -> tuple[bytes, str]:
    """A body and the content type that would be right."""
    kind = rng.random()
    if kind < 0.6:
        return stream_body(rng, chance), "text/event-stream"
    if kind < 0.85:
        return dump(changed(rng, WHOLE, chance)).encode("utf-8", "surrogatepass"), "application/json"
    if kind < 0.95:
        return dump(changed(rng, FAILED, chance)).encode("utf-8", "surrogatepass"), "application/json"
    return rng.choice(
        (b"", b"<html>502</html>", b"\xff\xfe\x00", b"null", b"[]", b"data: ", b"\x1f\x8b\x08", b"5")
    ), "text/html"


HEADERS: tuple[tuple[str, str], ...] = (
    *(
        ("Retry-After", value)
        for value in ("0", "0.01", "-1", "nan", "1e400", "9" * 400 + "s", "9" * 20, "Fri, 99 Foo 1 1:1")
    ),
    *(
        ("Retry-After", value)
        for value in ("Sun, 06 Nov 99999999999994 08:49:37 GMT", "\xe9", "1d2h", "", "Mon, 1 Jan 1 0:0:0")
    ),
    *(("retry-after-ms", value) for value in ("1", "1e308", "inf", "²")),
    *(
        ("x-ratelimit-reset-requests", value)
        for value in ("1ms", "9" * 400 + "h", "1e30", "2026-01-01T00:00:00", "\x80")
    ),
    *(("x-should-retry", value) for value in ("true", "false", "TRUE ", "maybe")),
    *(
        ("Date", "x"),
        ("Server", "caf\xe9"),
        ("Server", "x" * 5000),
        ("Set-Cookie", "a=b"),
        ("Location", "\x1b[2J"),
        ("X-Kv", "\xff"),
    ),
    *(("Content-Encoding", value) for value in ("gzip", "br", "identity", "deflate", "gzip, gzip", "\xe9")),
)
CONTENT_TYPES = (
    "text/event-stream",
    "application/json",
    "text/html",
    "text/plain",
    "",
    "application/problem+json",
    "\xe9/x;",
    "x" * 500,
)
STATUSES = (200,) * 30 + (400, 422, 429, 500, 503, 201, 299, 302, 413, 508)


def any_reply(rng: random.Random) -> tuple[bytes, bool]:
    """The bytes of one reply, and whether the connection is to be closed after it."""
    body, content_type = body_of(rng, rng.choice((0.0, 0.02, 0.05, 0.2)))
    headers = [rng.choice(HEADERS) for _ in range(rng.choice((0, 0, 0, 1, 3)))]
    if rng.random() < 0.1:
        content_type = rng.choice(CONTENT_TYPES)
    if rng.random() < 0.05:
        body = rng.choice((gzip.compress, zlib.compress))(body)
        headers.append(("Content-Encoding", rng.choice(("gzip", "deflate"))))
    start, *rest = head(rng.choice(STATUSES), content_type or None).split(b"\r\n", 1)
    extra = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
    lead = start + b"\r\n" + extra + rest[0][:-2]
    framing, closes = rng.random(), rng.random() < 0.05
    if framing < 0.5:
        parts = [body[at : at + 400] for at in range(0, len(body), 400)] if rng.random() < 0.3 else [body]
        data = (
            lead + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunk(part) for part in parts if part) + chunk(b"")
        )
    elif framing < 0.9:
        wrong = rng.choice((0,) * 20 + (5, -1))
        data, closes = lead + b"Content-Length: %d\r\n\r\n" % max(0, len(body) + wrong) + body, closes or wrong != 0
    else:
        data, closes = lead + b"\r\n" + body, True
    if rng.random() < 0.03:
        data, closes = data[: rng.randrange(len(data) + 1)], True
    return data, closes


PAGES: dict[str, Callable[[random.Random], Any]] = {
    "/v1/models": lambda rng: {
        "object": "list",
        "data": [{"id": "m", "root": "m", "parent": None, "max_model_len": 4096}],
    },
    "/version": lambda rng: {"server": "x", "version": "1.0"},
    "/props": lambda rng: {"model_path": "m", "build_info": "b", "n_ctx": 4096, "chat_template": "{{ x }}"},
    "/get_server_info": lambda rng: {"model_path": "m", "version": "1", "dtype": "bf16"},
}
METRICS = (
    *(
        'vllm:prefix_cache_hits_total{m="a"} 3.0\n',
        "# TYPE a counter\n",
        "a{",
        "cache_x NaN\n",
        "tokens 1e999\n",
        "\x00",
    ),
    *('b{c="\xe9"} x\n', 'requests{a="\\"} 1\n', 'cache_config_info{block="\u2028"} 1\n', "x" * 9000 + " 1\n"),
)


def any_page(rng: random.Random, path: str, chance: float) -> bytes:
    """A whole reply to a GET."""
    if path in PAGES:
        body, code = dump(changed(rng, PAGES[path](rng), chance)).encode("utf-8", "surrogatepass"), 200
    elif path == "/metrics":
        body, code = "".join(rng.choices(METRICS, k=rng.randrange(6))).encode(), 200
    else:
        body, code = b"", rng.choice((200, 404))
    extra = "".join(
        f"{name}: {value}\r\n" for name, value in rng.choices(HEADERS, k=2) if name != "Content-Encoding" and chance
    )
    lead = head(code, "application/json", length=len(body)).split(b"\r\n", 1)
    return lead[0] + b"\r\n" + extra.encode("latin-1") + lead[1] + body
