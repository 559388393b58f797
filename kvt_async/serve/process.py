"""Run a server until it is told to stop: the numpy reference, or kvpress behind the same API."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.packaged_models import packaged_model
from kvt_async.serve import ROOM, KvpressOptions, ServerRoom

if TYPE_CHECKING:
    from aiohttp import web

    from kvt_async.serve.backend import Backend

# One BLAS thread: the order of a sum never depends on how busy the machine is, so equal requests give equal bytes; and
# the other cores stay free for the client. BLAS reads these once, when numpy is first imported.
_THREADS_CHOSEN = "OMP_NUM_THREADS" in os.environ
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")

STOP_GRACE_S = 1.0
MOST_PREFIX_BLOCK = 512
IDLE_S = 30.0  # a connection with no request under way, or with half of a head, is closed


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    model: str | None = None,
    room: ServerRoom = ROOM,
    kvpress: KvpressOptions | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then return. Port 0 lets the system choose.

    Once listening, prints `listening on http://HOST:PORT/v1` and what the prefill cache holds, flushed, and calls
    `ready` with that URL.
    Raises ConfigError when the address can't be had or the model can't be served, MissingPrerequisiteError when the
    kvpress backend's libraries aren't installed.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"{port} is no port", where="--port", do="Choose 1 to 65535, or 0 for any free one.")
    if not 0 <= room.prefix_block <= MOST_PREFIX_BLOCK:
        raise ConfigError(
            f"--prefix-block {room.prefix_block} is out of range", do=f"Choose 1 to {MOST_PREFIX_BLOCK}, or 0 for none."
        )
    if room.prefix_block and kvpress is not None:
        raise ConfigError("--prefix-block belongs to the numpy backend", do="Leave it out.")
    if room.prefill_cache_mb < 0 or room.max_queue < 1:
        raise ConfigError(
            f"--prefill-cache-mb {room.prefill_cache_mb} or --max-queue {room.max_queue} is out of range",
            do="Keep the cache at 0 or more and the queue at 1 or more.",
        )

    def make() -> "tuple[web.Application, str]":
        from kvt_async.serve.app import application

        engine = _numpy_engine(model, room) if kvpress is None else _kvpress_engine(kvpress)
        return application(engine, max_queue=room.max_queue, names=[host]), _capacity(engine)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(host, port, make, ready))


def _numpy_engine(model: str | None, room: ServerRoom) -> "Backend":
    from kvt_async.serve.engine import Engine
    from kvt_async.serve.weights import REFERENCE_DIR

    packaged = packaged_model(model) if model else None
    path = packaged or (Path(model) if model else REFERENCE_DIR)
    return Engine(path, room.prefill_cache_mb << 20, model if packaged else None, room.prefix_block)


def _capacity(engine: "Backend") -> str:
    """How many tokens of prompts are kept for their other budgets, for whoever chooses the order of requests."""
    token_bytes, room = engine.about.token_bytes, engine.store.limit_bytes
    if room == 0:
        return "prefill cache: none, every request reads its whole prompt"
    return f"prefill cache: {room // token_bytes:,} tokens ({room >> 20:,} MB at {token_bytes:,} bytes a token)"


def load_plugins(paths: Sequence[str]) -> None:
    """Run files that give eviction policies, and print which to stderr. Raises ConfigError for what is wrong in one."""
    if not paths:
        return
    from kvt_async.contract.plugin_files import load
    from kvt_async.contract.settings import PluginFile
    from kvt_async.serve.policies import refuse_equal_names

    for origin in load([PluginFile(path=path) for path in paths]):
        print(f"plugin {origin.says}", file=sys.stderr, flush=True)
    refuse_equal_names()


def _kvpress_engine(options: KvpressOptions) -> "Backend":
    from kvt_async.serve.kvpress_model import load, require_extra

    require_extra()
    import torch

    if not _THREADS_CHOSEN:  # one thread is right for the tiny model in numpy, not for a large one on a CPU
        torch.set_num_threads(os.cpu_count() or 1)
    from kvt_async.serve.kvpress_presses import Presses

    presses = Presses(options.press)  # before the model: a wrong name costs no minutes
    loaded = load(options.model, device=options.device, dtype=options.dtype)
    from kvt_async.serve.kvpress_engine import KvpressEngine

    return KvpressEngine(loaded, presses)


async def _serve(
    host: str, port: int, make: Callable[[], "tuple[web.Application, str]"], ready: Callable[[str], None] | None
) -> None:
    from aiohttp import web

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    app, capacity = make()
    # handler_cancellation: a client that leaves takes its queued work along.
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_GRACE_S, keepalive_timeout=IDLE_S
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as problem:
            raise ConfigError(
                f"can't listen: {problem.strerror or problem}",
                where=f"{host}:{port}",
                do="Stop what uses the port, choose another --port, or --port 0 for any free one.",
            ) from None
        url = f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}/v1"
        print(f"listening on {url}\n{capacity}", flush=True)
        if ready is not None:
            ready(url)
        await stop.wait()
    finally:
        await runner.cleanup()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
