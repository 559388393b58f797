"""Runs `kvt view` until it is stopped: prints the URL with its token, opens a browser where that is wanted."""

import asyncio
import os
import signal
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from kvt_async.contract.errors import ConfigError
from viewer.pages.page_access import TOKEN_VARIABLE, Doorkeeper
from viewer.pages.web_app import ViewApp

STOP_GRACE_S = 1.0
IDLE_S = 60.0
MOST_BYTES = 16_384  # of a request's head line or field
SHORTEST_TOKEN = 16


def serve_view(roots: Sequence[Path], *, host: str, port: int, open_browser: bool) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError where a folder isn't there or the address can't be had."""
    for root in roots:
        if not root.exists():
            raise ConfigError(
                f"there is no folder {root}", where="kvt view", do="Pass folders of runs, or run folders."
            )
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"{TOKEN_VARIABLE} has less than {SHORTEST_TOKEN} characters", do="Choose a longer one.")
    asyncio.run(_serve(roots, Doorkeeper(token, (host,)), host, port, open_browser=open_browser))


async def _serve(roots: Sequence[Path], doorkeeper: Doorkeeper, host: str, port: int, *, open_browser: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    runner = web.AppRunner(
        ViewApp(roots, doorkeeper).app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=STOP_GRACE_S,
        keepalive_timeout=IDLE_S,
        max_line_size=MOST_BYTES,
        max_field_size=MOST_BYTES,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as problem:
            raise ConfigError(
                f"can't listen: {problem.strerror or problem}",
                where=f"{host}:{port}",
                do="Choose another --port, or leave it out for any free one.",
            ) from None
        url = f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}/"
        print(f"view: {url}?token={doorkeeper.token}\n(Ctrl-C stops it; nothing is written)", flush=True)
        if open_browser:
            await asyncio.to_thread(webbrowser.open, f"{url}?token={doorkeeper.opening_token}")
        await stop.wait()
    finally:
        await runner.cleanup()
