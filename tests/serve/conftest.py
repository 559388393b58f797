"""A real server on a real socket, the engine below it, and prompts in the reference model's language."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy, as the server itself does

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from kvt_async.data.sources.kvtext import chat
from kvt_async.records import Example
from kvt_async.serve.app import make_app
from kvt_async.serve.engine import Engine
from kvt_async.serve.weights import REFERENCE_DIR, Ints
from tests.serve.support import GOLDEN, Api, Encode, start


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine(REFERENCE_DIR, 256 << 20)


@pytest.fixture(scope="session")
def encode(engine: Engine) -> Encode:
    def ids(ex: Example) -> Ints:
        return engine.tokenizer.encode(" ".join(chat(ex)), special=False).ids

    return ids


@pytest.fixture(scope="session")
def golden() -> Any:
    return np.load(GOLDEN / "parity.npz")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    runner, base = await start(make_app(prefill_cache_mb=64, max_queue=64))
    async with aiohttp.ClientSession() as session:
        yield Api(base, session)
    await runner.cleanup()
