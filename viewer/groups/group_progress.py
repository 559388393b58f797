"""How far groups are, for pages that ask every second or two: `kvt status`, read at most as often as it is cheap."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from analyzer.results.number_format import plural
from kvt_async.contract.errors import KvtError
from kvt_async.contract.live_figures import live_history
from kvt_async.contract.local_faults import explained
from kvt_async.contract.schema import connect_for_reading
from kvt_async.status import status
from viewer.groups.group_places import GroupPlace
from viewer.groups.opened_group import opened_group

Json = dict[str, Any]
FRESH_S = 0.7  # an answer so young is given again
COST_SHARE = 0.2  # of the time may go into reading
HISTORY = 120  # figures of the last ten minutes
_LOADS = """SELECT level, load, json_extract(figures_json, '$.output_tokens_per_s.value') AS tokens,
    json_extract(figures_json, '$.ttft_p99_s.value'), n_owed FROM bench_points
    WHERE exp_group_id = ? AND generation = ? ORDER BY tokens DESC"""


@dataclass
class Kept:
    """The last progress that was read of a group, when, and how long reading took."""

    progress: Json
    at: float
    took_s: float

    def is_fresh(self, now: float) -> bool:
        return now - self.at < max(FRESH_S, self.took_s / COST_SHARE)


class ProgressBoard:
    """The progress of groups, each read by one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def progress(self, place: GroupPlace) -> Json:
        """What `group_progress` reads, a moment old at most, or older where reading takes long."""
        async with self._locks.setdefault(place.key, asyncio.Lock()):
            kept = self._kept.get(place.key)
            if kept is None or not kept.is_fresh(time.monotonic()):
                before = time.monotonic()
                progress = await asyncio.to_thread(group_progress, place)
                after = time.monotonic()
                kept = self._kept[place.key] = Kept(progress, after, after - before)
            return kept.progress


def group_progress(place: GroupPlace) -> Json:
    """Counts and live figures as `kvt status --json`, with `state` (a word), `says` (a sentence), `history` (figures of
    the last minutes) and `verdicts` (sentences by task and series). `error` alone where it can't be read."""
    if place.problem:
        return {"state": "unreadable", "says": place.problem, "error": place.problem}
    try:
        now = status(place.settings())
        word, says = state_of(now)
        return {**now, "state": word, "says": says, "history": _history(place, now), "verdicts": _verdicts(place, now)}
    except (KvtError, sqlite3.Error, OSError) as error:
        fault = explained(error)
        what = str(error) if fault is None else "; ".join([fault.what, *fault.details])
        return {"state": "unreadable", "says": what, "error": what}


def state_of(now: Json) -> tuple[str, str]:
    """(running | finished | killed | stopped | partial, a sentence) of a status."""
    sessions = now["sessions"]
    last = sessions[-1] if sessions else None
    left = now["pending"] + sum(level["planned"] for level in now["levels"] if not level["begun"])
    if now["running"]:
        return "running", f"Running: {now['holder']}."
    if last is not None and last["ended_at"] is None:
        owed = f"; {left:,} requests have no outcome yet" if left else ""
        return "killed", f"Its last session was killed{owed}. The same command goes on."
    if not left:
        failed = f", {now['failures']:,} failed" if now["failures"] else ""
        return "finished", f"Finished: {now['responses']:,} answered{failed}."
    if last is not None and last["reason"] != "finished":
        return "stopped", f"Its last session stopped ({last['reason']}); {left:,} requests have no outcome yet."
    return "partial", f"{left:,} requests have no outcome yet."


def _history(place: GroupPlace, now: Json) -> list[Json]:
    """Rates of the newest session, a point every few seconds; of a group in several databases none."""
    if "shards" in now or not place.db.is_file():
        return []
    with closing(connect_for_reading(place.db)) as conn:
        readings = live_history(
            lambda sql, *values: conn.execute(sql, values).fetchall(), place.name, now["generation"], HISTORY
        )
    return [
        {
            "at": reading.at,
            "done_per_s": reading.figures.done_per_s,
            "output_tokens_per_s": reading.figures.output_tokens_per_s,
            "in_flight": reading.figures.in_flight,
            "ttft_p50_ms": reading.figures.ttft_p50_ms,
        }
        for reading in readings
    ]


def _of_loads(loads: Sequence[tuple[str, str, float | None, float | None, int]]) -> str:
    """'3 loads measured; most output at rate 4/s: 98.9 tokens/s, TTFT p99 32 ms.' of stored points, most output
    first."""
    level, load, tokens, ttft_s, _ = loads[0]
    name = f"{level}, {load}" if level else load
    most = f"; most output at {name}: {tokens:,.0f} tokens/s" if tokens is not None else ""
    ttft = f", TTFT p99 {ttft_s * 1000:.3g} ms" if tokens is not None and ttft_s is not None else ""
    return f"{plural(len(loads), 'load')} measured{most}{ttft}."


def _verdicts(place: GroupPlace, now: Json) -> list[Json]:
    sql = """SELECT task, series, sentence, verdict, safe_budget, partial FROM verdicts
        WHERE exp_group_id = ? AND generation = ?"""
    with opened_group(place) as conn:
        rows = conn.execute(sql, (place.name, now["generation"])).fetchall()
        order = {row[0]: row[1] for row in conn.execute("SELECT series, min(level_idx) FROM runs GROUP BY 1")}
        loads = conn.execute(_LOADS, (place.name, now["generation"])).fetchall()
    names = ("task", "series", "sentence", "verdict", "safe_budget", "partial")
    if loads:
        rows.append(("*", "", _of_loads(loads), "", None, any(owed for *_, owed in loads)))
    verdicts = [dict(zip(names, row, strict=True)) for row in rows]
    return sorted(verdicts, key=lambda each: (each["task"] != "*", order.get(each["series"], 0)))
