"""A small OpenAI-like server whose budgets may apply while it generates: the outside world of those tests.

Its answer is words that hang on the prompt; behind a compression they hang on the budget too. What it holds it counts
as a cache does: the prompt, and every token of the answer that was read again.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.servers.openai_server import FakeServer, Script, on_loopback


@dataclass(frozen=True)
class Held:
    """What became of one answer's cache."""

    n_compressions: int
    kept_tokens: int
    peak_tokens: int
    compressed_tokens: int | None
    kept_fraction: float | None
    after: int  # words of the answer that no compression touched


def held(kv: dict[str, Any], prompt: int, answer: int) -> Held:
    """`answer` tokens behind `prompt` ones. Compressed is after so many tokens read, to keep_tokens or a share of those
    seen, where that is less than is held."""
    interval = (kv.get("params") or {}).get("compression_interval", 512)
    now = peak = prompt
    counts: list[int] = []
    shares: list[float] = []
    n, first = 0, answer
    if kv.get("when") == "both":
        now = min(now, kv.get("keep_tokens") or max(1, int(prompt * kv["budget"])))
        counts, shares = [now], [now / prompt]
    for read in range(1, answer):  # the last token of an answer is not read
        now += 1
        peak = max(peak, now)
        target = kv.get("keep_tokens") or max(1, int((prompt + read) * kv["budget"]))
        if read % interval == 0 and now > target:
            n, first, now = n + 1, min(first, read + 1), target
            counts.append(now)
            shares.append(now / (prompt + read))
    return Held(n, now, peak, max(counts, default=None), max(shares, default=None), first)


class DecodingServer(FakeServer):
    """`knob`: works | ignores_when (evicts from the prompt) | mute (evicts while it generates and says nothing of it) |
    echo_only (says that it does) | dead (neither). `length`: words of the answer to a prompt; its last one is the name
    of the prompt's fact, or `wrong` where the cache was compressed by then and `is_hurt` says that the prompt needs
    what is gone. `says`: changes what a reply's usage.kv says. `room`: for prompt and answer, in tokens."""

    def __init__(
        self,
        knob: str,
        length: Callable[[str], int],
        is_hurt: Callable[[str], bool] = lambda _: True,
        says: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        room: int = 1 << 30,
    ) -> None:
        super().__init__(Script(knob=knob))
        self.length, self.is_hurt, self.says, self.room = length, is_hurt, says, room

    async def _answer(self, http: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        prompt, kv = body["messages"][-1]["content"], body.get("kv") or {}
        if kv.get("when", "prefill") == "prefill" and "compression_interval" in (kv.get("params") or {}):
            return web.json_response({"error": {"message": "nothing is evicted later"}}, status=400)
        n, tokens = min(self.length(prompt), body["max_tokens"]), len(prompt) // 4
        if tokens + body["max_tokens"] > self.room:
            error = {"message": "This model's maximum context length is exceeded", "code": "context_length_exceeded"}
            return web.json_response({"error": error}, status=400)
        usage: dict[str, Any] = {"prompt_tokens": tokens, "completion_tokens": n}
        after, when = n, kv.get("when", "prefill")
        if kv.get("policy", "full") != "full" and self.script.knob != "dead":
            cache = held(kv, tokens, n)
            if when == "prefill" or self.script.knob == "ignores_when":
                after = 1
                usage["kv"] = {"kept_fraction": kv["budget"]} if "budget" in kv else {"kept_tokens": kv["keep_tokens"]}
            else:
                after = cache.after if self.script.knob != "echo_only" else n
                names = ("n_compressions", "kept_tokens", "peak_tokens", "compressed_tokens", "kept_fraction")
                usage["kv"] = {"when": when} | {name: getattr(cache, name) for name in names}
                usage["kv"]["bytes"] = 100 * cache.peak_tokens
        else:
            usage["kv"] = {"when": "prefill", "kept_tokens": tokens, "kept_fraction": 1.0, "n_compressions": 0}
            usage["kv"] |= {"peak_tokens": tokens + n - 1, "bytes": 100 * (tokens + n - 1)}
        usage["kv"] = self.says(usage["kv"])
        if self.script.knob in ("dead", "mute"):
            del usage["kv"]
        salt = f"{kv.get('budget')}{kv.get('keep_tokens')}"
        words = [_word(prompt, i, salt if i >= after else "") for i in range(n)]
        if n < body["max_tokens"] or n == self.length(prompt):  # the answer ends with what it is right by
            fact = f"fact{prompt.partition('Fact ')[2].partition(':')[0]}end"
            words[-1] = "wrong" if after < n and self.is_hurt(prompt) else fact
        return await self.reply(http, body, words, usage)


def _word(prompt: str, at: int, salt: str) -> str:
    return hashlib.sha256(f"{prompt}|{at}|{salt}".encode()).hexdigest()[:4] + " "


@asynccontextmanager
async def decoding(
    knob: str = "works",
    length: Callable[[str], int] = lambda _: 64,
    is_hurt: Callable[[str], bool] = lambda _: True,
    says: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> AsyncIterator[str]:
    """The server's base URL on 127.0.0.1 while the block runs."""
    async with on_loopback(DecodingServer(knob, length, is_hurt, says)) as url:
        yield url
