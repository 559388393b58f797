"""Settings for small benches against a loopback server, and what they left in the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import run_paths
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from tests.servers.openai_server import FakeServer, Script


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


@asynccontextmanager
async def on_loopback(server: FakeServer) -> AsyncIterator[str]:
    """Its base URL while the block runs."""
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def settings_for(folder: Path, base_url: str, *overrides: str) -> Settings:
    """A bench of 20 requests of 40 tokens, 4 warm-ups; a load is the caller's to choose."""
    return load_settings(None, overrides_for(folder, base_url, *overrides), environ={})


def overrides_for(folder: Path, base_url: str, *overrides: str) -> list[str]:
    return [
        "experiment.exp_group_id=b", "tokenizer.name=approx:chars/4", "model.name=reference",
        f"engine.base_url={base_url}", f"output.runs_dir={folder}/runs", f"output.data_dir={folder}/data",
        "bench.requests=20", "bench.warm_up={requests: 4, latencies: 0}", "bench.workload.input_tokens.value=40",
        "bench.workload.output_tokens.value=6", "bench.scrape_interval_s=0.2", *overrides,
    ]  # fmt: skip


def query(settings: Settings, sql: str, *values: object) -> list[tuple[Any, ...]]:
    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    conn = connect_for_reading(paths.db)
    try:
        return conn.execute(sql, values).fetchall()
    finally:
        conn.close()


def page_of(found: dict[str, Any]) -> str:
    """The Markdown report that an analysis has written."""
    return Path(found["report_md"]).read_text(encoding="utf-8")
