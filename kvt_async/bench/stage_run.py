"""One stage in one session: prompts made, schedule stored, requests sent, samples and window written."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import chain

import orjson

from kvt_async.bench.bench_progress import View
from kvt_async.bench.prepared_requests import BLOCK, Bodies, Maker, Planned
from kvt_async.bench.scrape import Sampler, metrics_urls
from kvt_async.bench.sending_window import Job, Tally, Window
from kvt_async.bench.stage import Left, Stage
from kvt_async.bench.workload import Workload
from kvt_async.clock import utc_now
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json
from kvt_async.session.client_health import Health
from kvt_async.session.interrupts import Interrupts
from kvt_async.session.run_log import RunLog
from kvt_async.store.columns import Row, rows_of_give_ups
from kvt_async.store.writer import Writer
from kvt_async.sweep.pipeline import first_error
from kvt_async.sweep.server_session import beside

LEAD_NS = 50_000_000  # open loop: between the window's row on disk and the first instant of its schedule


@dataclass(slots=True)
class BenchLive:
    """What the stages of a session share."""

    settings: Settings
    workload: Workload
    store: Writer
    sender: Sender
    interrupts: Interrupts
    session_id: str
    say: Callable[[str], None]
    log: RunLog
    quiet: bool
    stop: asyncio.Event
    latency_s: float | None = None  # of the longest first request, before any load


@dataclass(slots=True)
class StageEnd:
    """How a window ended; the caller adds the stop rule and writes it."""

    reason: EndReason
    row: Json


async def run_stage(
    live: BenchLive, stage: Stage, left: Left | None, head: Sequence[Row] = (), shown: Json | None = None
) -> StageEnd:
    """Send what is left of a stage; everything is committed when this returns. `left` None: its first window.

    `head`: rows to be stored together with the schedule: a stage is there with all of its requests, or not at all.

    The end row is returned, not written: whether a stop rule held is known only from the stored facts.
    """
    bench, store = live.settings.bench, live.store
    with Bodies() as bodies:
        maker = Maker(live.settings, live.workload, stage, bodies, shown)
        measured, warm_up, first_free = await _planned(maker, stage, left)
        n = len(warm_up) + len(measured)
        offsets = stage.offsets_ns(n)
        now = utc_now()
        rows = list(head)
        for planned, offset in zip([*warm_up, *measured], offsets, strict=True):
            if left is None or not planned.measured:  # a resumed stage has its measured requests already
                rows += maker.rows(planned, offset, live.session_id, now)
        await store.save(rows)
        sampler = Sampler(live.sender.get_text, metrics_urls(stage.run.level.endpoints, bench.metrics_url),
                          bench.scrape_interval_s)  # fmt: skip
        await sampler.take("before")
        tally, health = Tally(), Health()
        view = View(stage, n if stage.n_measured is not None else None, tally, health, live.log)
        window = Window(
            live.sender, store, live.stop, live.session_id, utc_now, view.attempted, view.saved, bench.late_ms,
            bench.drain_s, tally,
        )  # fmt: skip
        left_s = None if stage.n_measured is not None or left is None else left.measured_s
        duration_s = None if stage.n_measured is not None else (stage.duration_s or 0.0) - (left_s or 0.0)
        start_ns = await _open(live, stage, left, len(measured) if duration_s is None else None, duration_s)
        jobs = _jobs(maker, list(chain(warm_up, measured)), offsets, left, first_free, duration_s, live.session_id)
        health.start()
        live.interrupts.draining = True
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(beside(health.watch(), view.show(live.quiet), sampler.during()))
                stack.push_async_callback(jobs.aclose)
                if stage.load.is_open:
                    await window.open_loop(jobs, start_ns, stage.max_in_flight)
                else:
                    most_s = bench.max_s if bench.requests == "auto" and duration_s is None else None
                    await window.closed_loop(jobs, stage.load.concurrency or 1, duration_s, most_s)
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not live.interrupts.hit or task is None:
                raise
            task.uncancel()  # Ctrl-C: what has ended is kept, and the window gets its end
        finally:
            drained_ns = time.perf_counter_ns()
            live.interrupts.draining = False
            health.stop()
        if settled := await live.sender.last_word():
            await store.save(rows_of_give_ups(settled, utc_now()))
        await store.flush()
        await sampler.take("after")
        client = health.row()
        for row in await asyncio.to_thread(sampler.rows, live.session_id, stage.run.run_id):
            await store.insert("server_samples", row)
        await _keep_health(live, stage, client, view)
        row = _end_row(live, stage, tally, drained_ns, client)
        return StageEnd(row["reason"], row)


async def _planned(maker: Maker, stage: Stage, left: Left | None) -> tuple[list[Planned], list[Planned], int]:
    """Measured requests, warm-up requests, and the first place that nobody has."""
    if left is None:
        seqs, free = list(range(stage.n_measured or 0)), stage.n_measured or 0
    else:
        seqs, free = left.seqs, left.next_seq
    measured = await asyncio.to_thread(maker.plan, seqs, measured=True)
    warm_up = await asyncio.to_thread(maker.plan, range(free, free + stage.n_warm_up), measured=False)
    return measured, warm_up, free + stage.n_warm_up


async def _open(
    live: BenchLive, stage: Stage, left: Left | None, n_planned: int | None, duration_s: float | None
) -> int:
    """Write the window's row; return its start. A closed loop, which has no schedule to wait for, begins at once."""
    start_ns = time.perf_counter_ns() + (LEAD_NS if stage.load.is_open else 0)
    await live.store.insert(
        "bench_windows",
        {
            "run_id": stage.run.run_id,
            "session_id": live.session_id,
            "window_idx": left.n_windows if left else 0,
            "start_ns": start_ns,
            "started_at": utc_now(),
            "n_planned": n_planned,
            "duration_s": duration_s,
        },
    )
    return start_ns


async def _jobs(
    maker: Maker, planned: Sequence[Planned], offsets: Sequence[int | None], left: Left | None, first_free: int,
    duration_s: float | None, session_id: str,
) -> AsyncGenerator[Job, None]:  # fmt: skip
    """Jobs in the order of the schedule; closed loop by duration goes on as long as it is asked."""
    attempts = left.attempts if left else {}
    for one, offset in zip(planned, offsets, strict=True):
        yield Job(maker.request(one, attempts.get(one.seq, 0)), one.measured, offset)
    if duration_s is None:
        return
    size, seq = 2 * BLOCK, first_free
    ahead = asyncio.create_task(asyncio.to_thread(maker.plan, range(seq, seq + BLOCK), measured=True))
    try:
        while True:
            block = await ahead
            seq += len(block)
            ahead = asyncio.create_task(asyncio.to_thread(maker.plan, range(seq, seq + size), measured=True))
            for one in block:
                yield Job(maker.request(one), True, None, tuple(maker.rows(one, None, session_id, utc_now())))
    finally:
        await asyncio.wait([ahead])  # a thread can't be cancelled; its bodies' file must outlive it


def _end_row(live: BenchLive, stage: Stage, tally: Tally, drained_ns: int, client: Json) -> Json:
    return {
        "run_id": stage.run.run_id,
        "session_id": live.session_id,
        "measured_from_ns": tally.measured_from_ns,
        "measured_to_ns": tally.measured_to_ns,
        "drained_ns": drained_ns,
        "n_sent": tally.n_sent,
        "n_measured": tally.n_measured,
        "n_late": tally.n_late,
        "late_max_ms": tally.late_max_ms,
        "n_held": tally.n_held,
        "peak_in_flight": tally.peak_in_flight,
        "reason": EndReason.STOP_RULE if tally.cut and _reason(live) == EndReason.FINISHED else _reason(live),
        "stop_rule": f"bench.max_s ({live.settings.bench.max_s:g} s) was over" if tally.cut else None,
        "client_json": orjson.dumps(client).decode(),
        "ended_at": utc_now(),
    }


def _reason(live: BenchLive) -> EndReason:
    if live.interrupts.hit:
        return EndReason.INTERRUPTED
    return EndReason.SERVER if live.sender.breaker.tripped.is_set() else EndReason.FINISHED


async def _keep_health(live: BenchLive, stage: Stage, client: Json, view: View) -> None:
    live.log("client", stage=stage.name, **client)
    row = dict(client)
    detail = {**row.pop("detail"), "run_id": stage.run.run_id, "done": view.done, "failed": view.failed,
              "errors": dict(view.errors)}  # fmt: skip
    fixed = {"session_id": live.session_id, "created_at": utc_now(), "detail_json": orjson.dumps(detail).decode()}
    await live.store.insert("client_health", {**fixed, **row})
