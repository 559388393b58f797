"""What load a stage puts on the server, and how it is called everywhere."""

from dataclasses import dataclass, field
from sqlite3 import Row
from typing import Literal

import orjson

from kvt_async.bench import length_draws
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.load_shape import LoadShape, words

Begun = Literal["requests", "conversations"]


@dataclass(frozen=True, slots=True)
class Load:
    """Open loop at a rate or by a trace's timestamps, or closed loop with so many in flight.

    Exactly one of `rate_per_s`, `speed` and `concurrency` is set; of a load with a shape it is the highest.
    """

    rate_per_s: float | None = None
    concurrency: int | None = None
    arrival: Literal["constant", "poisson", "gamma", "trace"] = "poisson"  # open loop
    burstiness: float = 1.0  # gamma: shape of the gaps
    of: Begun = "requests"  # what begins at the rate, or keeps a place
    speed: float | None = None  # a trace's timestamps, so many times as fast
    pace_per_s: float | None = field(default=None, compare=False)  # of a replay: mean arrivals a second, where known
    unloaded: bool = False  # one at a time, no load: what answers under load are compared with
    shape: LoadShape | None = None  # None: it does not change
    each: float = field(default=1.0, compare=False)  # requests that an arrival brings, as far as the config says it

    @property
    def is_open(self) -> bool:
        return self.rate_per_s is not None or self.speed is not None

    @property
    def requests_per_s(self) -> float | None:
        """Planned requests a second, of a replay in the mean; None: a closed loop, or not known."""
        return self.rate_per_s * self.each if self.rate_per_s is not None else self.pace_per_s

    @property
    def size(self) -> float:
        """Rate, speed or concurrency: what a ladder climbs."""
        if self.speed is not None:
            return self.speed
        return self.rate_per_s if self.rate_per_s is not None else float(self.concurrency or 0)

    @property
    def label(self) -> str:
        """'rate 4/s', 'rate 4/s constant', 'rate 4/s gamma 0.5', 'concurrency 16', 'replay x2', 'unloaded', 'steps 2,
        8/s of 30 s'; of conversations 'rate 0.5 conversations/s', '16 users'."""
        if self.unloaded:
            return "unloaded"
        talks = self.of == "conversations"
        if self.speed is not None:
            return f"replay x{self.speed:g}"
        head = words(self.shape, is_open=self.is_open) if self.shape is not None else None
        if self.rate_per_s is None:
            users = "1 user" if self.concurrency == 1 else f"{self.concurrency} users"
            return head or (users if talks else f"concurrency {self.concurrency}")
        kind = {"constant": " constant", "gamma": f" gamma {self.burstiness:g}"}.get(self.arrival, "")
        return (head or f"rate {self.rate_per_s:g}{' conversations' if talks else ''}/s") + kind


UNLOADED = Load(concurrency=1, unloaded=True)


def load_of(bench: Bench, size: float, *, is_open: bool) -> Load:
    """A load of the config's kind; rates are rounded to four figures, so that labels say what was sent."""
    of: Begun = "conversations" if bench.workload.kind == "conversations" else "requests"
    is_made = of == "conversations" and bench.workload.path is None
    each = length_draws.mean(bench.workload.turns) if is_made else 1.0
    if not is_open:
        return Load(concurrency=max(1, round(size)), of=of, each=each)
    rate = float(f"{size:.4g}")
    return Load(rate_per_s=rate, arrival=bench.arrival, burstiness=bench.burstiness, of=of, each=each)


def replay_of(speed: float) -> Load:
    """The replay of a trace; speeds are rounded as rates are."""
    return Load(arrival="trace", speed=float(f"{speed:.4g}"))


def stored_load(row: Row) -> Load:
    """The load of a row of bench_stages."""
    if row["load"] == UNLOADED.label:
        return UNLOADED
    if row["arrival"] == "trace":
        return replay_of(float(row["load"].rpartition("x")[2]))
    of: Begun = "conversations" if orjson.loads(row["workload_json"])["kind"] == "conversations" else "requests"
    shape = orjson.loads(row["plan_json"]).get("shape")
    return Load(
        rate_per_s=row["rate_per_s"],
        concurrency=row["concurrency"],
        arrival=row["arrival"] or "poisson",
        burstiness=row["burstiness"] or 1.0,
        of=of,
        shape=None if shape is None else LoadShape.of_json(shape),
    )


def shaped_load(bench: Bench, shape: LoadShape) -> Load:
    """The load of a ramp or of steps."""
    if not bench.shape_is_open:
        return Load(concurrency=round(shape.highest), shape=shape)
    return Load(rate_per_s=shape.highest, arrival=bench.arrival, burstiness=bench.burstiness, shape=shape)
