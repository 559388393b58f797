"""Prompts in the reference model's language, request bodies, and a client of a server on a real socket."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from kvt_async.data.sources.kvtext import generate
from kvt_async.records import Example
from kvt_async.serve.weights import REFERENCE_DIR, Ints

Encode = Callable[[Example], Ints]
GOLDEN = Path(__file__).parent / "golden"
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TOOLS_HEAD = "{% if tools %}{{ ' <system> ' }}{% for tool in tools %}{{ tool.function.name }}{% endfor %}{% endif %}"


def example(tokens: int, seed: int = 7) -> Example:
    """A multikey example whose rendered prompt has exactly this many tokens."""
    return next(iter(generate("multikey", contexts=1, min_tokens=tokens, max_tokens=tokens, seed=seed)))


def body(ex: Example, kv: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A greedy chat request for the example."""
    content = f"{ex.context} {ex.question}"
    request = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 6, **fields}
    return request | ({"kv": kv} if kv is not None else {})


def with_tools(folder: Path, head: str) -> Path:
    """The packaged model's folder with a chat template that writes `head` before the messages."""
    for file in REFERENCE_DIR.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = config["chat_template"].replace("{{ bos_token }}", "{{ bos_token }}" + head)
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@dataclass
class Api:
    """A client of one running server."""

    base: str
    session: aiohttp.ClientSession

    async def post(self, request: Any, path: str = "/v1/chat/completions") -> tuple[int, dict[str, Any]]:
        data = request if isinstance(request, bytes) else json.dumps(request).encode()
        async with self.session.post(self.base + path, data=data) as reply:
            return reply.status, await reply.json()

    async def stream(self, request: dict[str, Any], path: str = "/v1/chat/completions") -> list[Any]:
        """The data of each event in order, '[DONE]' as a string."""
        async with self.session.post(self.base + path, json={**request, "stream": True}) as reply:
            assert reply.status == 200
            assert reply.headers["Content-Type"].startswith("text/event-stream")
            raw = (await reply.read()).decode()
        events = [event.removeprefix("data: ") for event in raw.split("\n\n") if event]
        return [json.loads(event) if event != "[DONE]" else event for event in events]

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.base + path) as reply:
            return reply.status, await reply.text()


async def start(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)$')


def parse_metrics(page: str) -> dict[str, float]:
    """Every sample by its name and labels; fails on a line that Prometheus would refuse."""
    samples: dict[str, float] = {}
    for line in page.splitlines():
        if line.startswith("# "):
            assert line.split()[1] in ("HELP", "TYPE")
            continue
        found = SAMPLE.match(line)
        assert found, line
        assert found[1] + (found[2] or "") not in samples, "a sample twice"
        samples[found[1] + (found[2] or "")] = float(found[3])
    return samples


LABEL = '{model_name="reference",engine="0"}'


async def metric(api: Api, name: str) -> float:
    return parse_metrics((await api.get("/metrics"))[1])[name + LABEL]


async def until(api: Api, name: str, wanted: float) -> None:
    """Return once the metric has this value; it is the server's own word, and there is nothing else to wait on."""
    async with asyncio.timeout(10):
        while await metric(api, name) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
