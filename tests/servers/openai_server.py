"""A small scripted OpenAI-like server on loopback: the outside world of the sweep's tests, not a stand-in for our own
code. Its answer depends on the prompt and, unless the knob is dead, on the KV budget it was sent.

As a program (`python -m tests.servers.openai_server --port 0 ...`) it prints its URL and can be killed.
"""

import argparse
import asyncio
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson
from aiohttp import web


@dataclass
class Script:
    """How the server behaves. `faults` maps a kind to its share of requests, drawn with `seed` per prompt and try."""

    # works | dead | random (unlike itself) | echo_only (reports a budget, changes nothing) | half (applies half of it)
    knob: str = "works"
    too_long: int = 1 << 30  # characters; longer prompts are refused
    hurts: str = ""  # the budget changes answers to prompts that hold this text alone
    window: int = 1 << 30  # tokens that it reads of a prompt
    delay_s: float = 0.0
    words: int = 6
    faults: dict[str, float] = field(
        default_factory=dict
    )  # http_500 | http_429 | cut | stall | garbage | http_400 | hang_up
    seed: int = 1
    model: str = "reference"
    version: str = "1.0"
    log: Path | None = None  # a line per request body, flushed before the answer
    key: str | None = None
    refused_words: str | None = None  # a prompt with these is refused by a filter
    refusal: tuple[int, int] | None = None  # from this request on (0, 1, ...) every one gets that status
    die_after: int | None = None
    strict: bool = False  # another model name is refused
    kept: float = 1.0  # the budget that it applies where a request names none
    metrics: str = 'vllm:prefix_cache_hits_total{m="a"} 3.0\nunrelated 1\n'  # its /metrics page
    pages: dict[str, Any] = field(default_factory=dict)  # other JSON pages, by path: /server_info
    said: dict[str, Any] = field(default_factory=dict)  # what every reply's usage holds besides
    reuses_from: float | None = None  # it has a prefix cache, for budgets of at least this, and says what was cached
    renamed_after: tuple[int, str] | None = None  # from this request on it calls itself another version


class FakeServer:
    """Counts what it was asked; `bodies` holds every request body in order."""

    def __init__(self, script: Script) -> None:
        self.script, self.in_flight, self.most_in_flight = script, 0, 0
        self.bodies: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.prefixes: set[tuple[float, str]] = set()  # budgets and prompts that its cache holds, with their answers
        self.app = web.Application(client_max_size=1 << 26)
        self.app.add_routes([
            web.post("/v1/chat/completions", self.chat), web.get("/v1/models", self.models),
            web.get("/version", self.version), web.get("/metrics", self.metrics),
            *(web.get(path, self.page) for path in script.pages),
        ])  # fmt: skip

    async def chat(self, http: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            return await self._chat(http)
        finally:
            self.in_flight -= 1

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        raw = await http.read()
        body, script = orjson.loads(raw), self.script
        self.bodies.append(body)
        if script.die_after is not None and len(self.bodies) > script.die_after:
            os._exit(9)
        if script.log is not None:
            with script.log.open("ab") as file:  # a test server may block for a line
                file.write(hashlib.sha256(raw).hexdigest().encode() + b"\n")
        if script.key is not None and http.headers.get("Authorization") != f"Bearer {script.key}":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        if script.refusal is not None and len(self.bodies) > script.refusal[0]:
            return web.json_response({"error": {"message": "refused"}}, status=script.refusal[1])
        if script.refused_words is not None and script.refused_words in body["messages"][-1]["content"]:
            return web.json_response({"error": {"message": "filtered"}}, status=403)
        if script.strict and body["model"] != script.model:
            return web.json_response({"error": {"message": f"no model {body['model']}"}}, status=404)
        if sum(len(message["content"]) for message in body["messages"]) > script.too_long:
            error = {"message": "This model's maximum context length is exceeded", "code": "context_length_exceeded"}
            return web.json_response({"error": error}, status=400)
        key = hashlib.sha256(raw).hexdigest()
        self.tries[key] += 1
        fault = self._fault(key, self.tries[key])
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
        if fault == "hang_up":
            assert http.transport is not None
            http.transport.close()
        if fault == "http_500":
            return web.json_response({"error": {"message": "overloaded"}}, status=500)
        if fault == "http_400":
            return web.json_response({"error": {"message": "no"}}, status=400)
        if fault in ("http_402", "http_403", "http_501"):
            return web.json_response({"error": {"message": "not you"}}, status=int(fault[-3:]))
        if fault == "http_429":
            return web.json_response({"error": {"message": "slow"}}, status=429, headers={"Retry-After": "0"})
        if fault == "garbage":
            return web.Response(text="<html>oops</html>", content_type="text/html")
        return await self._answer(http, body, fault)

    def usage(self, prompt: str, n: int) -> dict[str, Any]:
        """What the reply says of its tokens."""
        return {"prompt_tokens": min(len(prompt) // 4, self.script.window), "completion_tokens": n}

    async def _answer(self, http: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        prompt = "".join(message["content"] for message in body["messages"])
        kv, script = body.get("kv") or {}, self.script
        seen = kv.get("budget", script.kept) if script.knob in ("works", "random", "half") else 1.0
        seen = seen if script.hurts in prompt else 1.0
        seen = seen / 2 if script.knob == "half" and seen < 1 else seen
        salt = random.random() if script.knob == "random" else ""
        digest = hashlib.sha256(f"{prompt}|{seen}|{salt}".encode()).hexdigest()
        n = min(script.words, body["max_tokens"])
        usage = self.usage(prompt, n)
        texts = [digest[i * 4 : i * 4 + 4] + " " for i in range(n)]
        if script.reuses_from is not None:
            held = [known for budget, known in self.prefixes if budget == seen and prompt.startswith(known)]
            cached = len(max(held, key=len, default="")) // 4
            usage["prompt_tokens_details"] = {"cached_tokens": cached if seen >= script.reuses_from else 0}
            self.prefixes |= {(seen, prompt), (seen, prompt + "".join(texts).strip())}
        usage |= script.said
        if script.knob != "dead" and "budget" in kv:
            usage["kv"] = {"policy": kv.get("policy"), "kept_fraction": seen if script.knob == "half" else kv["budget"]}
        return await self.reply(http, body, texts, usage, fault)

    async def reply(
        self, http: web.Request, body: dict[str, Any], texts: list[str], usage: dict[str, Any], fault: str | None = None
    ) -> web.StreamResponse:
        """Send an answer, streamed where that was asked for."""
        if not body.get("stream"):
            choice = {"index": 0, "message": {"content": "".join(texts)}, "finish_reason": "stop"}
            return web.json_response({"choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
        if fault in ("cut", "stall"):
            await response.write(b"data: " + orjson.dumps(chunks[0]) + b"\n\n")
            if fault == "stall":
                await asyncio.sleep(3600)  # until the client has had enough
            assert http.transport is not None
            http.transport.close()
            return response
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        chunks.append({"choices": [], "usage": usage})
        await response.write(b"".join(b"data: " + orjson.dumps(c) + b"\n\n" for c in chunks) + b"data: [DONE]\n\n")
        return response

    def _fault(self, key: str, nth: int) -> str | None:
        at = random.Random(f"{self.script.seed}:{key}:{nth}").random()
        for kind, share in self.script.faults.items():
            if at < share:
                return kind
            at -= share
        return None

    async def models(self, http: web.Request) -> web.Response:
        if self.script.key is not None and http.headers.get("Authorization") != f"Bearer {self.script.key}":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        return web.json_response({"data": [{"id": self.script.model}]})

    async def version(self, _: web.Request) -> web.Response:
        after = self.script.renamed_after
        name = after[1] if after is not None and len(self.bodies) >= after[0] else self.script.version
        return web.json_response({"version": name, "uptime_s": time.monotonic()})

    async def page(self, http: web.Request) -> web.Response:
        if self.script.key is not None and http.headers.get("Authorization") != f"Bearer {self.script.key}":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        page = self.script.pages[http.path]
        return web.Response(text=page) if isinstance(page, str) else web.json_response(page)

    async def metrics(self, _: web.Request) -> web.Response:
        page, after = self.script.metrics.replace("N_REQUESTS", str(len(self.bodies))), self.script.renamed_after
        kept = 1.0 if after is not None and len(self.bodies) >= after[0] else self.script.kept
        return web.Response(text=page.replace("KEPT", str(kept)))


class Counting(FakeServer):
    """`reached` is set when it has been asked `n` times."""

    def __init__(self, script: Script, n: int) -> None:
        super().__init__(script)
        self.n, self.reached = n, asyncio.Event()

    async def chat(self, http: web.Request) -> web.StreamResponse:
        if len(self.bodies) + 1 >= self.n:
            self.reached.set()
        return await super().chat(http)


class FailingAfterTheFirst(FakeServer):
    """Its first reply, to the ready check, is never a fault."""

    def _fault(self, key: str, nth: int) -> str | None:
        return super()._fault(key, nth) if len(self.bodies) > 1 else None


class HasApp(Protocol):
    app: web.Application


@asynccontextmanager
async def on_loopback(server: HasApp, port: int = 0) -> AsyncIterator[str]:
    """A server's base URL on 127.0.0.1 while the block runs."""
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving(script: Script, port: int = 0) -> AsyncIterator[tuple[FakeServer, str]]:
    """(server, base URL) on 127.0.0.1 while the block runs."""
    server = FakeServer(script)
    async with on_loopback(server, port) as url:
        yield server, url


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--knob", default="works")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--faults", default="{}")
    parser.add_argument("--version", default="1.0")
    parser.add_argument("--kept", type=float, default=1.0, help="budget applied where a request names none")
    parser.add_argument("--die-after", type=int, help="exit hard at this request")
    parser.add_argument("--renamed-after", type=int, help="call itself version 2.0 from this request on")
    args = parser.parse_args()
    script = Script(knob=args.knob, delay_s=args.delay, log=args.log, faults=orjson.loads(args.faults),
                    version=args.version, metrics="kv_kept KEPT\n", die_after=args.die_after,
                    kept=args.kept, renamed_after=args.renamed_after and (args.renamed_after, "2.0"))  # fmt: skip
    async with serving(script, args.port) as (_, url):
        print(url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
