"""Run the reference server until it is told to stop."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from kvt_async.contract.errors import ConfigError

# One BLAS thread: the order of a sum never depends on how busy the machine is, so equal requests give equal bytes; and
# the other cores stay free for the client. BLAS reads these once, when numpy is first imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")

STOP_GRACE_S = 1.0


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    model_dir: Path | None = None,
    prefill_cache_mb: int = 1024,
    max_queue: int = 4096,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then return. Port 0 lets the system choose.

    Once listening, prints `listening on http://HOST:PORT/v1`, flushed, and calls `ready` with that URL.
    Raises ConfigError when the address can't be had or the model folder can't be served.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"{port} is no port", where="--port", do="Choose 1 to 65535, or 0 for any free one.")
    if prefill_cache_mb < 0 or max_queue < 1:
        raise ConfigError(
            f"--prefill-cache-mb {prefill_cache_mb} or --max-queue {max_queue} is out of range",
            do="Keep the cache at 0 or more and the queue at 1 or more.",
        )
    coroutine = _serve(host, port, model_dir, prefill_cache_mb, max_queue, ready)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(coroutine)


async def _serve(
    host: str, port: int, model_dir: Path | None, prefill_cache_mb: int, max_queue: int,
    ready: Callable[[str], None] | None,
) -> None:  # fmt: skip
    from aiohttp import web

    from kvt_async.serve.app import make_app

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    app = make_app(model_dir, prefill_cache_mb=prefill_cache_mb, max_queue=max_queue)
    # handler_cancellation: a client that leaves takes its queued work along.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_GRACE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as problem:
            raise ConfigError(
                f"can't listen: {problem.strerror or problem}", where=f"{host}:{port}",
                do="Stop what uses the port, choose another --port, or --port 0 for any free one.",
            ) from None  # fmt: skip
        url = f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}/v1"
        print(f"listening on {url}", flush=True)
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
