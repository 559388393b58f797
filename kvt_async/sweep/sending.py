"""What a sweep does with one server: meet it, write down what it owes, warm it up, send, save.

The order of these steps, and what is said of their outcome, is `sweep_invocation.py`'s.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from kvt_async.clock import utc_now
from kvt_async.contract.labels import entry_of
from kvt_async.engine.send.witness import Asked
from kvt_async.records import Json, Payload
from kvt_async.session import handshake
from kvt_async.session.canary_prompts import shortest
from kvt_async.session.client_health import keep_health
from kvt_async.session.experiment_rows import add_generation, add_runs
from kvt_async.session.live_feed import feed
from kvt_async.session.probes import patiently, refuse, refuse_all_failed
from kvt_async.session.progress import Progress
from kvt_async.session.server_check import identify, keep_snapshots
from kvt_async.session.servers import watched
from kvt_async.session.session import ServerSession
from kvt_async.session.task_rows import add_tasks
from kvt_async.store.columns import Row, rows_of_give_ups
from kvt_async.sweep.pending import SweepGroup, SweepTask
from kvt_async.sweep.pipeline import WORKERS_PER_PLACE, Pipeline, send_all
from kvt_async.sweep.places import Places
from kvt_async.sweep.plan import steps
from kvt_async.sweep.request_builder import RequestBuilder
from kvt_async.sweep.request_queue import RequestQueue
from kvt_async.sweep.request_source import Feed
from kvt_async.sweep.turn_order import read_conversations
from kvt_async.sweep.turn_source import TurnFeed


async def meet_server(server: ServerSession, builder: RequestBuilder, generation: int) -> dict[str, Json]:
    """Reach it and learn who it is, by endpoint. Raises ServerError, ConfigError, DriftError."""
    if not await handshake.check_server(server.sender, server.settings, server.endpoints, server.say):
        await _ask_once(server, builder)
    return await identify(server, generation)


async def _ask_once(server: ServerSession, builder: RequestBuilder) -> None:
    """A server that lists other models, or none, may take any name, or be none: does it answer the shortest prompt?

    Raises ConfigError when it refuses it, ServerError when it doesn't answer.
    """
    settings, level = builder.settings, server.runs[0].level
    decoding = settings.decoding.model_copy(update={"max_tokens": 1})
    entry = shortest(server.reader, builder.dataset_id)
    payload = builder.payload(entry, level, settings.model_copy(update={"decoding": decoding}))
    attempt = await patiently(server.sender.probe, level.endpoints[0], payload)
    refuse(attempt, level.label, settings)
    refuse_all_failed([attempt])


async def register(
    server: ServerSession, group: SweepGroup, identities: Mapping[str, Json], evidence: Mapping[str, Json]
) -> None:
    """Write the generation, its tasks, the missing rows of `runs`, who serves them and what it says of its budgets: now
    the group owes these levels."""
    store, reader, settings, generation = server.store, server.reader, server.settings, group.generation
    await add_generation(store, reader, settings, group.contract, generation)
    await add_tasks(store, reader, settings, generation, [task.part for task in group.tasks], server.session_id)
    for task in group.tasks:
        await add_runs(
            store,
            task.settings,
            [run for run in server.runs if run.dataset_id == task.dataset_id],
            dataset_id=task.dataset_id,
            generation=generation,
            template_version=str(task.prepared.head.prompt["template_version"]),
            engine_name=handshake.engine_name(next(iter(identities.values()))),
        )
    await keep_snapshots(server, "start", identities, evidence)


async def open_try_series(server: ServerSession, task: SweepTask, limit: int | None) -> None:
    """Open, for --retry-failed, a new try series for every failure of a task that is in the plan: of the first `limit`
    entries of each bin, where a limit is given."""
    wanted = None if limit is None else set(server.reader.first_of_each_bin(task.dataset_id, limit))

    def is_planned(request_id: str) -> bool:
        seq, sample = entry_of(request_id)
        return sample < task.samples and (wanted is None or seq in wanted)

    for run in server.runs:
        failures = server.reader.failed(run.run_id) if run.stored else []
        rows: list[Row] = [
            ("try_series", (request_id, series_idx + 1, server.session_id, utc_now()))
            for request_id, series_idx in failures
            if is_planned(request_id)
        ]
        if rows:
            await server.store.save(rows)


async def send(
    server: ServerSession, builder: RequestBuilder, places: Places, done: Sequence[bytearray], progress: Progress
) -> None:
    """Send what is pending. Returns when all is saved, or sending has stopped: see `watched`."""
    settings, sender, health = builder.settings, server.sender, progress.health
    for endpoint, payload in await asyncio.to_thread(_answered_before, server, builder):
        sender.witness.remember(
            Asked(endpoint, payload.path, payload.body, payload.headers, settings.decoding.most_tokens)
        )
    conversations = await asyncio.to_thread(read_conversations, server.reader, builder.dataset_id)
    in_turns: TurnFeed | None = None
    if conversations is not None and settings.workload.is_in_turns:
        in_turns = TurnFeed(server, builder, conversations, places.n, progress.settled)
    source = in_turns or Feed(server, builder, conversations)
    is_repeat = [level.repeat_idx > 0 for level in server.levels]
    order = steps(done, is_repeat, settings.limits.order, settings.sampling.seed)
    workers = places.n * WORKERS_PER_PLACE
    queue = RequestQueue(workers)
    pipe = Pipeline(sender.send, server.store, queue, places, progress, server.stop, server.session_id, in_turns)
    health.start()
    server.interrupts.draining = True
    try:
        async with (
            watched(server, health.watch(), progress.show(server.options.shows_nothing), feed(server, progress)),
            aclosing(source.requests(order)) as requests,
        ):
            await send_all(requests, pipe, workers=workers)
            if settled := await sender.witness.last_word():
                await server.store.save(rows_of_give_ups(settled, utc_now()))
                progress.settled(settled)
                if in_turns is not None:
                    await in_turns.fail(settled)
    finally:
        server.interrupts.settle()
        health.stop()
        await keep_health(server, health.row(), progress.figures())
    if in_turns is not None and in_turns.moved:
        turns = "1 turn" if in_turns.moved == 1 else f"{in_turns.moved:,} turns"
        server.say(
            f"warning: {turns} went to another endpoint than the turn before, which could not be reached: what that "
            "one keeps of the conversation was of no use"
        )


def _answered_before(server: ServerSession, builder: RequestBuilder) -> list[tuple[str, Payload]]:
    """A request that was answered in an earlier session, for each endpoint that answered one."""
    payloads: dict[str, Payload] = {}
    for run in server.runs:
        if run.stored and not payloads.keys() >= set(run.level.endpoints):
            request_id = server.reader.an_answered(run.run_id)
            if request_id is not None:
                seq, _ = entry_of(request_id)
                entry = server.reader.entries(builder.dataset_id, [seq])[seq]
                payload = builder.payload(entry, run.level, builder.settings)
                payloads = dict.fromkeys(run.level.endpoints, payload) | payloads
    return list(payloads.items())
