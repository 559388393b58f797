"""`kvt bench`: from settings to every stage of the ladder measured, or a clear reason why not.

check -> lock -> contract -> what is left -> guard -> session -> ready -> stages -> what came of it.
"""

import asyncio
import hashlib
from pathlib import Path

import orjson

from kvt_async.bench import client_ceiling, messages
from kvt_async.bench.bench_invocation import BenchInvocation, BenchOptions, Plan
from kvt_async.bench.ladder import loads_in_sight
from kvt_async.bench.messages import BenchReport
from kvt_async.bench.scored_prompts import check_scored, store_examples, with_manifest
from kvt_async.bench.stage import bench_levels
from kvt_async.bench.traces.trace_workload import paced
from kvt_async.bench.workload import Workload, load_workload
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import known_secrets
from kvt_async.contract.settings import Settings
from kvt_async.records import Json
from kvt_async.senders import scratch_facts
from kvt_async.senders.shares import sender_count
from kvt_async.session.experiment_rows import find_generation
from kvt_async.session.invocation import at_work, loop_factory, opened, sayer
from kvt_async.ways.registry import check_level, way_of

__all__ = ["BenchOptions", "execute", "run"]


def execute(settings: Settings, options: BenchOptions) -> BenchReport:
    """Run it on a loop of its own. Raises KvtError as `run` does."""
    with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
        return runner.run(run(settings, options))


async def run(settings: Settings, options: BenchOptions) -> BenchReport:
    """Send every stage that is left of the ladder, at every level.

    Raises ConfigError, ContractMismatchError, StoreError, GuardError before anything is sent; ServerError when nobody
    answers at the start. A server that dies later, Ctrl-C and failures are no exceptions: the report says so.
    """
    say = sayer(options.shows_nothing)
    settings = way_of(settings.kv.apply.via).with_port(with_a_load(settings))
    if settings.bench.scored:
        check_scored(settings)
    settings = await asyncio.to_thread(with_manifest, settings, say, dry_run=options.dry_run)
    levels = bench_levels(settings)
    for level in levels:
        if level.cuts_prompts:
            raise ConfigError(
                f"{level.policy} is a control of answers, not a server's way of serving",
                where="kv",
                do="Leave it out, or set bench.levels: false.",
            )
        check_level(settings, level)
    processes = process_count(settings)
    workload = await asyncio.to_thread(load_workload, settings)
    for line in workload.about:
        say(line)
    for note in workload.notes:
        say(f"warning: {note}")
    ceilings = client_ceiling.of_processes(client_ceiling.cached(settings), processes)
    if options.dry_run:
        return BenchReport(
            settings.experiment.exp_group_id, "", plan=messages.estimate(settings, workload, levels, ceilings)
        )
    if options.guarded:
        loads = [paced(workload, load) for load in loads_in_sight(settings.bench)]
        mean = workload.mean_output_tokens()
        client_ceiling.guard(settings, mean, loads, ceilings, options.force, say, processes)
    with at_work(settings) as log, opened(settings, options, log) as invocation:
        scratch_facts.take_over_left(invocation.paths.db)
        facts = contract(settings, workload)
        generation = find_generation(invocation.reader, settings, facts, force=options.force)
        examples = await asyncio.to_thread(_examples, settings, invocation.paths.db, generation)
        plan = Plan(generation, facts, workload, levels, ceilings, processes, examples, within_s=options.within_s)
        return await BenchInvocation(invocation, plan).go()


def _examples(settings: Settings, db: Path, generation: int) -> str | None:
    """The dataset whose answers are scored, stored by now; None: they aren't scored."""
    path = settings.bench.workload.path
    return store_examples(db, path, generation) if settings.bench.scored and path is not None else None


def process_count(settings: Settings) -> int:
    """How many processes send. Raises ConfigError where one would get less than one request of a stage, or where places
    of a closed loop would have to know of those of other processes."""
    bench = settings.bench
    by_places = (bench.shape is not None and not bench.shape_is_open) or bench.warm_up.places is not None
    if by_places and settings.limits.processes != 1 and not all(load.is_open for load in loads_in_sight(bench)):
        raise ConfigError(
            "a closed loop whose places come and go, or that warms up by places, is sent by one process",
            where="limits.processes",
            do="Set limits.processes: 1, or send the load as a rate (ramp of: rate, steps with rate).",
        )
    closed = [load.concurrency for load in loads_in_sight(bench) if load.concurrency is not None]
    key = "concurrency" if bench.sweep_concurrency is None else "sweep_concurrency"
    bounds: dict[str, float | None] = {
        f"bench.{key}": min(closed, default=None),
        "bench.max_in_flight": None if closed else bench.max_in_flight,
        "bench.requests": None if bench.requests == "auto" else bench.requests,
    }
    return sender_count(settings, bounds)


def with_a_load(settings: Settings) -> Settings:
    """The settings with a load to put on the server. Raises ConfigError where there is none."""
    bench = settings.bench
    if (
        bench.search_rate
        or bench.replays
        or bench.shape is not None
        or any(getattr(bench, name) is not None for name in ("rate", "concurrency", "sweep_rate", "sweep_concurrency"))
    ):
        return settings
    raise ConfigError(
        "there is no load to send",
        where="bench",
        do="Give one: --rate 4, --concurrency 16, --sweep-rate 1,2,4 (or auto), --sweep-concurrency 1,8,64 (or auto), "
        "--search-rate with --slo, --ramp-rate 1:20 --duration 60, --step-rate 2:30,8:30,2:30, or --replay of a trace.",
    )


def contract(settings: Settings, workload: Workload) -> Json:
    """What must stay equal for stages to belong to one group; loads and repeats extend it."""
    bench, system = settings.bench, settings.prompt.system
    decoding = settings.decoding.model_dump(mode="json", exclude={"max_tokens", "samples"})  # the workload's
    facts = {
        "bench.workload": workload.describe(),
        "bench.body": bench.body,
        "bench.retries": bench.retries,
        "model.name": settings.model.name,
        **({"bench.models": [model.model_dump() for model in bench.models]} if bench.models else {}),
        "prompt.endpoint": settings.prompt.endpoint,
        "prompt.system_sha256": hashlib.sha256(system.encode()).hexdigest() if system else None,
        "engine.stream": settings.engine.stream,
        **{f"decoding.{name}": value for name, value in decoding.items()},
    }
    plain: Json = known_secrets(settings).json(orjson.loads(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)))
    return plain
