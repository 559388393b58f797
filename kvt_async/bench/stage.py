"""A stage: its plan, its place in the store, and what of it is still to be sent."""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import orjson

from kvt_async.bench.arrivals import offsets_ns, shape_begins_s, shaped_offsets_ns
from kvt_async.bench.conversations.conversation_counts import ConversationCounts
from kvt_async.bench.conversations.conversation_plan import ConversationPlan
from kvt_async.bench.ladder import Next, n_rungs
from kvt_async.bench.load_steps import Load
from kvt_async.bench.request_counts import measured_requests, warm_up_requests
from kvt_async.bench.traces.trace_summary import TracePart
from kvt_async.bench.traces.trace_workload import replayed_part
from kvt_async.bench.workload import Workload
from kvt_async.clock import utc_now
from kvt_async.contract.differing_fields import difference
from kvt_async.contract.errors import ContractMismatchError
from kvt_async.contract.load import known_secrets
from kvt_async.contract.secrets import matches
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EndReason
from kvt_async.records import Json, Level, Run
from kvt_async.session.experiment_rows import level_identity, make_run_id
from kvt_async.session.invocation import Invocation
from kvt_async.store.reader import Reader
from kvt_async.ways.budget_label import server_as_it_is
from kvt_async.ways.levels import make_levels


class StagePlan(Protocol):
    """What a bench will measure, as far as its stages need it."""

    @property
    def generation(self) -> int: ...

    @property
    def workload(self) -> Workload: ...


COMPARED = (
    *("load", "level", "loop", "arrival", "rate_per_s", "burstiness", "concurrency", "max_in_flight"),
    *("n_warm_up", "n_measured", "duration_s", "seed"),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One load at one level and repeat."""

    run: Run
    level: str | None  # label of the KV level; None: levels aren't benched
    load: Load
    repeat: int
    purpose: str
    stage_idx: int
    n_warm_up: int
    n_measured: int | None  # None: closed loop for duration_s
    duration_s: float | None
    seed: int
    salt: str | None
    max_in_flight: int | None
    part: TracePart | None = None  # what a replay sends of its trace
    streams: bool = False  # its requests are stored as they start: what has no row was never begun

    @property
    def name(self) -> str:
        """'rate 4/s', 'snapkv/aware 0.5, rate 4/s (repeat 1)': how it is called on screen."""
        head = f"{self.level}, {self.load.label}" if self.level else self.load.label
        return head + (f" (repeat {self.repeat})" if self.repeat else "")

    def row(self, workload: Json, slo: Json, calibration: Json | None, plan: Json) -> Json:
        """Its row in bench_stages."""
        load = self.load
        return {
            "run_id": self.run.run_id,
            "stage_idx": self.stage_idx,
            "purpose": self.purpose,
            "load": load.label,
            "level": self.level,
            "loop": "open" if load.is_open else "closed",
            "arrival": load.arrival if load.is_open else None,
            "rate_per_s": self.rate_per_s,
            "burstiness": load.burstiness if load.arrival == "gamma" and load.is_open else None,
            "concurrency": load.concurrency,
            "max_in_flight": self.max_in_flight,
            "n_warm_up": self.n_warm_up,
            "n_measured": self.n_measured,
            "duration_s": self.duration_s,
            "seed": self.seed,
            "salt": self.salt,
            "workload_json": orjson.dumps(workload, option=orjson.OPT_SORT_KEYS).decode(),
            "slo_json": orjson.dumps(slo, option=orjson.OPT_SORT_KEYS).decode(),
            "calibration_json": None if calibration is None else orjson.dumps(calibration).decode(),
            "plan_json": orjson.dumps(plan, option=orjson.OPT_SORT_KEYS).decode(),
            "created_at": utc_now(),
        }

    @property
    def rate_per_s(self) -> float | None:
        """Planned arrivals a second, in the mean; None: a closed loop, or a replay whose requests come all at once."""
        if self.part is None or self.load.speed is None:
            return self.load.rate_per_s
        rate = self.part.rate_per_s(self.load.speed)
        return float(f"{rate:.6g}") if math.isfinite(rate) else None

    def lasts_s(self, n: int, left: "Left | None" = None) -> float | None:
        """Seconds from the start of a window of `n` requests to the last one's due time; None in closed loop."""
        if self.part is not None and self.load.speed is not None:
            return self.part.seconds / self.load.speed
        if not self.load.is_open or n == 0:
            return None
        if self.load.shape is not None:
            return (self.offsets_ns(n, left)[-1] or 0) / 1e9
        return float(offsets_ns(self.load, n, (self.seed, self.repeat))[-1]) / 1e9

    def offsets_ns(self, n: int, left: "Left | None" = None) -> list[int | None]:
        """Due times of the first `n` arrivals of its schedule, or, of a load with a shape, of what is `left`; None in
        closed loop."""
        if not self.load.is_open:
            return [None] * n
        key = (self.seed, self.repeat)
        if self.load.shape is None:
            return [int(ns) for ns in offsets_ns(self.load, n, key)]
        seqs, _ = self.numbers(left)
        return [int(ns) for ns in shaped_offsets_ns(self.load, self.n_warm_up, seqs, key, resumes=left is not None)]

    @property
    def shape_json(self) -> Json | None:
        """How its load changes, and from which offset of its schedule on (open loop); None: it doesn't."""
        if self.load.shape is None:
            return None
        key = (self.seed, self.repeat)
        from_s = shape_begins_s(self.load, self.n_warm_up, key) if self.load.is_open else None
        return {**self.load.shape.as_json(), "from_ns": None if from_s is None else round(from_s * 1e9)}

    def numbers(self, left: "Left | None") -> tuple[Sequence[int], int]:
        """Numbers of the measured requests of its next window, and the first one that nobody has: the warm-up's."""
        if left is None:
            return range(self.n_measured or 0), self.n_measured or 0
        return left.seqs, left.next_seq

    def seconds_left(self, left: "Left | None") -> float | None:
        """How long its next window goes on in a closed loop by duration; None: it ends with its requests."""
        if self.n_measured is not None:
            return None
        return (self.duration_s or 0.0) - (0.0 if left is None else left.measured_s)


def bench_levels(settings: Settings) -> list[Level]:
    """The levels to bench: those of kv where bench.levels, without A/A repeats, else the server as it is."""
    if settings.bench.levels:
        return [level for level in make_levels(settings).levels if level.repeat_idx == 0]
    return [server_as_it_is(settings)]


def make_stage(
    invocation: Invocation,
    plan: StagePlan,
    level: Level,
    step: Next,
    latency_s: float | None = None,
    counts: ConversationCounts | None = None,
) -> Stage:
    """The stage of a step, as it is stored or as it will be; `latency_s`: of a request, as far as it is known by then,
    of a whole conversation where there are `counts` of them.

    Raises ContractMismatchError where one of its name was planned otherwise. How many requests `auto` and a warm-up of
    rate x latency come to is no plan of the config's: what is stored of them holds.
    """
    settings, reader, group = invocation.settings, invocation.reader, invocation.group
    bench, load, generation = settings.bench, step.load, plan.generation
    part = replayed_part(plan.workload, load)
    sql = "SELECT count(*) FROM bench_stages JOIN runs USING (run_id) WHERE exp_group_id = ? AND generation = ?"
    stage_idx: int = reader.value(sql, group, generation)
    series = f"{level.series}, {load.label}" if bench.levels else load.label
    named = replace(level, series=series, repeat_idx=step.repeat, level_idx=stage_idx)
    run_id = make_run_id(group, generation, replace(named, is_full=named.is_full and not bench.levels))
    stored = reader.rows("SELECT run_id, apply_json FROM runs WHERE run_id = ?", run_id)
    n_warm_up: int = warm_up_requests(bench, load, latency_s)
    n_measured: int | None = None
    if counts is not None:
        n_warm_up, n_measured = counts.sizes(bench, load, latency_s)
    rows = reader.rows("SELECT * FROM bench_stages WHERE run_id = ?", run_id)
    by_latency = (
        bench.warm_up.places is not None or rows[0]["n_warm_up"] >= bench.warm_up.requests > 0 if rows else False
    )
    if by_latency and load.is_open:
        n_warm_up = rows[0]["n_warm_up"]
    if part is not None:
        n_measured = part.n
    elif counts is None:
        n_measured = measured_requests(bench, step, n_warm_up, latency_s, plan.workload.size)
    duration_s = bench.duration_s if load.shape is None else load.shape.seconds
    duration_s = None if load.unloaded else duration_s
    if rows and bench.requests == "auto" and duration_s is None and rows[0]["n_measured"] is not None:
        n_measured = rows[0]["n_measured"]
    stage = Stage(
        run=Run(run_id, named, bool(stored)),
        level=level.label if bench.levels else None,
        load=load,
        repeat=step.repeat,
        purpose=step.purpose,
        stage_idx=stage_idx,
        n_warm_up=n_warm_up,
        n_measured=n_measured,
        duration_s=duration_s,
        seed=bench.seed,
        salt=secrets.token_hex(6) if bench.salted else None,
        max_in_flight=bench.max_in_flight if load.is_open else None,
        part=part,
        streams=plan.workload.streams,
    )
    if not rows:
        return stage
    stored_row = {name: rows[0][name] for name in COMPARED} | orjson.loads(stored[0]["apply_json"])
    wanted_row = {name: stage.row({}, {}, None, {})[name] for name in COMPARED}
    wanted_row |= level_identity(named, known_secrets(settings))
    if not matches(wanted_row, stored_row):
        raise ContractMismatchError(
            f"stage {stage.name} is stored with another plan; nothing was sent",
            where=str(reader.db),
            details=difference(stored_row, wanted_row),
            do="Choose a new experiment.exp_group_id, or pass --force to start a new generation beside the old one.",
        )
    return replace(stage, salt=rows[0]["salt"], purpose=rows[0]["purpose"], stage_idx=rows[0]["stage_idx"])


@dataclass(frozen=True, slots=True)
class Left:
    """What of a stored stage is still to do."""

    seqs: Sequence[int]  # measured places without an outcome, in order
    next_seq: int  # the first place nobody has
    n_windows: int
    attempts: dict[int, int]  # seq -> attempts stored
    measured_s: float  # closed loop by duration: measured so far
    cut: bool = False  # by bench.max_s: what was not begun isn't owed
    stored: frozenset[int] = frozenset()  # measured places with rows; of conversations and streams not all have them
    lost: frozenset[int] = frozenset()  # of seqs, turns of conversations behind one that has failed

    def is_done(self, stage: Stage) -> bool:
        """Whether nothing of the stage is owed any more."""
        if stage.n_measured is None:
            assert stage.duration_s is not None
            return self.n_windows > 0 and not len(self.seqs) and self.measured_s >= stage.duration_s * 0.999
        return not len(self.seqs) or self.cut


def what_is_left(reader: Reader, stage: Stage, plan: ConversationPlan | None = None) -> Left | None:
    """What of a stage is still to do; None: the stage was never stored. `plan`: of conversations, of which every turn
    is owed that has no outcome: a turn whose prompt waits for the reply before it has no row until then."""
    run_id = stage.run.run_id
    if not reader.rows("SELECT 1 FROM bench_stages WHERE run_id = ?", run_id):
        return None
    rows = reader.rows(
        """SELECT CAST(substr(r.request_id, ?) AS INTEGER) AS seq, b.phase,
           EXISTS (SELECT 1 FROM responses p WHERE p.request_id = r.request_id) AS answered,
           EXISTS (SELECT 1 FROM give_ups g WHERE g.request_id = r.request_id) AS given_up,
           (SELECT max(a.attempt_idx) + 1 FROM attempts a WHERE a.request_id = r.request_id) AS n_attempts
           FROM requests r JOIN bench_arrivals b USING (request_id) WHERE r.run_id = ? ORDER BY 1""",
        len(run_id) + 2,
        run_id,
    )
    measured = [row for row in rows if row["phase"] == "measured"]
    failed = [row["seq"] for row in measured if row["given_up"] and not row["answered"]]
    seqs: Sequence[int] = [row["seq"] for row in measured if not row["answered"] and not row["given_up"]]
    if stage.streams and stage.n_measured is not None:
        settled = [row["seq"] for row in measured if row["answered"] or row["given_up"]]
        seqs = cast(Sequence[int], np.setdiff1d(np.arange(stage.n_measured), np.array(settled, dtype=np.int64)))
    next_seq = max((row["seq"] for row in rows), default=-1) + 1
    cut = bool(
        reader.rows("SELECT 1 FROM bench_window_ends WHERE run_id = ? AND reason = ?", run_id, EndReason.STOP_RULE)
    )
    lost: frozenset[int] = frozenset()
    if plan is not None:
        seqs = _owed_turns(plan, measured, stage.n_measured or 0)
        broken = {plan.turn_of(seq).conversation: seq for seq in reversed(failed)}
        lost = frozenset(seq for seq in seqs if broken.get(plan.turn_of(seq).conversation, seq) < seq)
        next_seq = plan.whole(next_seq)
    return Left(
        seqs=seqs,
        next_seq=max(next_seq, stage.n_measured or 0),
        n_windows=reader.value("SELECT count(*) FROM bench_windows WHERE run_id = ?", run_id),
        attempts={row["seq"]: row["n_attempts"] for row in rows if row["n_attempts"]},
        measured_s=_measured_s(reader, run_id),
        cut=cut,
        stored=frozenset(row["seq"] for row in measured),
        lost=lost,
    )


def _owed_turns(plan: ConversationPlan, measured: Sequence[Any], n_measured: int) -> list[int]:
    """Measured turns without an outcome: of all conversations of the plan, and of those that were begun beyond it."""
    settled = {row["seq"] for row in measured if row["answered"] or row["given_up"]}
    begun = {plan.turn_of(row["seq"]).conversation for row in measured}
    turns = [plan.of(range(conversation, conversation + 1)) for conversation in sorted(begun)]
    places = {*range(n_measured), *(seq for places in turns for seq in places)}
    return sorted(places - settled)


def _measured_s(reader: Reader, run_id: str) -> float:
    """Seconds of steady state so far, of a closed loop; a killed window's lasts to its last outcome."""
    rows = reader.rows(
        """SELECT w.session_id, (SELECT measured_to_ns - measured_from_ns FROM bench_window_ends e
              WHERE e.run_id = w.run_id AND e.session_id = w.session_id) AS closed_ns,
           (SELECT max(t.end_ns) - min(t.start_ns) FROM requests r JOIN bench_arrivals b USING (request_id)
              JOIN attempts a USING (request_id) JOIN telemetry t USING (request_id, attempt_idx)
              WHERE r.run_id = w.run_id AND a.session_id = w.session_id AND b.phase = 'measured') AS seen_ns,
           EXISTS (SELECT 1 FROM bench_window_ends e WHERE e.run_id = w.run_id AND e.session_id = w.session_id) AS ended
           FROM bench_windows w WHERE w.run_id = ?""",
        run_id,
    )
    spans = [(row["closed_ns"] if row["ended"] else row["seen_ns"]) or 0 for row in rows]
    return float(np.sum(spans)) / 1e9


def plan_json(settings: Settings, share_of_ceiling: dict[str, Any] | None, shape: Json | None) -> Json:
    """What bench_stages.plan_json holds."""
    bench = settings.bench
    return {
        "stop": bench.stop.model_dump(mode="json"),
        "body": known_secrets(settings).json(bench.body),
        "retries": bench.retries,
        "drain_s": bench.drain_s,
        **({"scored": {"loads": n_rungs(bench), "unloaded": bench.unloaded}} if bench.scored else {}),
        "late_ms": bench.late_ms,
        "repeats": bench.repeats,
        **({"requests": "auto", "max_s": bench.max_s} if bench.requests == "auto" else {}),
        **({"shape": shape} if shape is not None else {}),
        **({"models": [model.model_dump(mode="json") for model in bench.models]} if bench.models else {}),
        **({"warm_up_places": bench.warm_up.places} if bench.warm_up.places is not None else {}),
        "stream": settings.engine.stream,
        "engine_loop": settings.engine.loop,
        "timeouts": settings.engine.timeouts.model_dump(mode="json"),
        "ceiling": share_of_ceiling,
    }
