"""Writes down every few seconds what a session at work has done: what contract/live_figures.py reads."""

import asyncio
from dataclasses import asdict
from typing import Protocol

from kvt_async.contract.live_figures import EVERY_S, LiveFigures
from kvt_async.records import Json
from kvt_async.session.client_health import health_row
from kvt_async.session.session import Session

FIRST_S = 2.0  # a session that is over by then leaves only its last word


class Fed(Protocol):
    """Who knows the figures."""

    def client_health(self) -> Json: ...
    def live(self) -> LiveFigures: ...


async def feed(session: Session, progress: Fed) -> None:
    """Write until cancelled."""
    await asyncio.sleep(FIRST_S)
    while session.store.broken is None:
        if client := progress.client_health():  # empty: no sender process has told anything yet
            row = health_row(session, client, {"live": asdict(progress.live())})
            await session.store.insert("client_health", row)
        await asyncio.sleep(EVERY_S)
