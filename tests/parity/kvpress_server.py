"""The kvpress backend over HTTP with the reference model, and the numpy server beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from kvt_async.serve.app import application, make_app
from kvt_async.serve.kvpress_engine import KvpressEngine
from kvt_async.serve.kvpress_model import load
from kvt_async.serve.kvpress_presses import Presses
from kvt_async.serve.weights import REFERENCE_DIR
from tests.serve.support import Api, start


def kvpress_engine(press: str | None = None) -> KvpressEngine:
    return KvpressEngine(load(str(REFERENCE_DIR), device="cpu", dtype="auto"), Presses(press))


@asynccontextmanager
async def served(engine: KvpressEngine | None) -> AsyncIterator[Api]:
    """A client of a server with this engine; None: the numpy server."""
    runner, base = await start(make_app(prefill_cache_mb=64) if engine is None else application(engine))
    async with aiohttp.ClientSession() as session:
        yield Api(base, session)
    await runner.cleanup()
