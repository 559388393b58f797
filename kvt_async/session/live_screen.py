"""What a person watching sees while something runs: redrawn on a terminal, a line now and then when piped."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

LINE_EVERY_S = 10.0
REDRAW_S = 0.5


async def keep_showing(line: Callable[[], str], drawing: Callable[[], Any], *, quiet: bool) -> None:
    """Draw until cancelled. `drawing`: what rich renders, made on the event loop and drawn beside it; `line`: the same
    as plain text, for what is no terminal."""
    if quiet:
        return
    if not sys.stderr.isatty():
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            print(line(), file=sys.stderr, flush=True)
    from rich.live import Live

    with Live(auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            now = drawing()
            await asyncio.to_thread(live.update, now, refresh=True)
            await asyncio.sleep(REDRAW_S)
