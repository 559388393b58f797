"""Which stage comes next: pure, from what the stages so far have shown. A resumed bench replays it from the store."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvt_async.bench.load_steps import UNLOADED, Load, load_of, replay_of, shaped_load
from kvt_async.bench.stage_figures import Figures
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.formulas.throughput import FALSE_LADDERS, Throughput, growth_bounds

Purpose = Literal["single", "list", "auto", "search", "unloaded"]


@dataclass(frozen=True, slots=True)
class Next:
    """A stage to run."""

    load: Load
    repeat: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Done:
    """A stage that ran to its end."""

    load: Load
    repeat: int
    figures: Figures
    rates: Throughput


def next_stage(bench: Bench, done: Sequence[Done]) -> Next | None:
    """The stage to run after these, which are of one level, in the order they ran; None: all have run.

    Where answers are scored the prompts are asked unloaded before the loads, and again after them: what differs between
    these askings is noise, drift, or what the loads left behind.
    """
    askings = sum(d.load.unloaded for d in done)
    if bench.scored and not askings:
        return Next(UNLOADED, 0, "unloaded")
    step = _next_load(bench, [d for d in done if not d.load.unloaded])
    if step is None and bench.scored and askings < bench.unloaded:
        return Next(UNLOADED, askings, "unloaded")
    return step


def _next_load(bench: Bench, done: Sequence[Done]) -> Next | None:
    if bench.search_rate:
        return _search(bench, done)
    if bench.replays:
        return _unrun(
            [replay_of(speed) for speed in bench.speeds],
            "list" if bench.sweep_speed is not None else "single",
            bench,
            done,
        )
    if bench.shape is not None:
        return _unrun([shaped_load(bench, bench.shape)], "single", bench, done)
    single = load_of(bench, bench.rate or bench.concurrency or 0, is_open=bench.rate is not None)
    if bench.rate is not None or bench.concurrency is not None:
        return _unrun([single], "single", bench, done)
    sizes = bench.sweep_rate if bench.sweep_rate is not None else bench.sweep_concurrency
    is_open = bench.sweep_rate is not None
    if isinstance(sizes, list):
        return _unrun([load_of(bench, size, is_open=is_open) for size in sizes], "list", bench, done)
    return _auto(bench, done, is_open=is_open)


def loads_in_sight(bench: Bench) -> list[Load]:
    """Loads known before anything is sent, for estimates and guards; auto ladders know their first only."""
    if bench.replays:
        return [replay_of(speed) for speed in bench.speeds]
    if bench.shape is not None:
        return [shaped_load(bench, bench.shape)]
    sizes = bench.sweep_rate if bench.sweep_rate is not None else bench.sweep_concurrency
    is_open = bench.rate is not None or bench.sweep_rate is not None or bench.search_rate
    if isinstance(sizes, list):
        return [load_of(bench, size, is_open=is_open) for size in sizes]
    if bench.search_rate and bench.search.low is not None and bench.search.high is not None:
        return [load_of(bench, size, is_open=True) for size in (bench.search.low, bench.search.high)]
    return [load_of(bench, bench.rate or bench.concurrency or bench.auto.start, is_open=is_open)]


def broken_rule(bench: Bench, one: Done, done: Sequence[Done]) -> str | None:
    """The stop rule that this stage breaks, as a sentence. `done`: the stages before it.

    A rate breaks a rule only where that is certain: over a whole ladder a rule is said to be broken without being so in
    at most 2.5% of ladders. Where a rate can't be told the ladder goes on.
    """
    if one.load.unloaded:
        return None
    stop, load, figures = bench.stop, one.load, one.figures
    done = [d for d in done if not d.load.unloaded]
    level = 1 - FALSE_LADDERS / max(n_rungs(bench), 1)
    if load.is_open and stop.achieved_share is not None and one.rates.kept_up.bound(level) < stop.achieved_share:
        share = f"{one.rates.kept_up.value:.0%} of the rate"
        return f"{load.label}: the server kept up with {share}, proven to be below {stop.achieved_share:.0%}"
    if stop.error_share is not None and figures.error_share > stop.error_share:
        return f"{load.label}: {figures.error_share:.0%} failed, above {stop.error_share:.0%}"
    if stop.slo and (missed := missed_objectives(bench, figures)):
        return f"{load.label}: {missed[0]}"
    if load.is_open or stop.gain is None:
        return None
    return _no_gain(one, sorted(_lower(one, done), key=lambda d: d.load.size), stop.gain, level)


def _no_gain(one: Done, lower: Sequence[Done], gain: float, level: float) -> str | None:
    """Output grew by less than `gain` a rung: since the rung below, or in the mean since one further down."""
    if not lower:
        return None
    rung = math.log(one.load.size / lower[-1].load.size)
    for d in reversed(lower):
        rungs = math.log(one.load.size / d.load.size) / rung
        if growth_bounds(d.rates.output_tokens, one.rates.output_tokens, level)[1] < rungs * math.log1p(gain):
            grew = one.rates.output_tokens.value / d.rates.output_tokens.value - 1
            since = "over the rung below" if d is lower[-1] else f"since {d.load.label}"
            return f"{one.load.label}: output grew by {grew:+.1%} {since}, proven to be less than {gain:.0%} a rung"
    return None


def n_rungs(bench: Bench) -> int:
    """How many loads a ladder may have: so many a rule may be broken at, and so many may be said to lose something."""
    if bench.search_rate:
        return bench.search.max_stages
    if bench.replays:
        return len(bench.speeds)
    sizes = bench.sweep_rate if bench.sweep_rate is not None else bench.sweep_concurrency
    return len(sizes) if isinstance(sizes, list) else bench.auto.max_stages


def missed_objectives(bench: Bench, figures: Figures) -> list[str]:
    """Sentences, one per objective that isn't met; what was not measured is not met."""
    sentences = []
    for name, limit in bench.slo.items():
        value = figures.value(name)
        if not value <= limit:
            sentences.append(f"{name} is {value:.4g}, the objective {limit:g}")
    return sentences


def ahead(bench: Bench, begun: Sequence[Done]) -> list[Next]:
    """Every stage that is known to come after those that have begun, should no further rule break: of a list all the
    rest, of an automatic ladder or a search the next."""
    loads = [d for d in begun if not d.load.unloaded]
    asked = len(begun) - len(loads) if bench.scored else 0
    unloaded = [Next(UNLOADED, n, "unloaded") for n in range(asked, bench.unloaded)] if bench.scored else []
    step, first = _next_load(bench, loads), 0 if asked else 1
    if step is not None and step.purpose not in ("auto", "search"):
        rest = _rest(loads_in_sight(bench), step.purpose, bench, loads)
    else:
        rest = [] if step is None else [step]
    return [*unloaded[:first], *rest, *unloaded[first:]]


def _unrun(loads: Sequence[Load], purpose: Purpose, bench: Bench, done: Sequence[Done]) -> Next | None:
    return next(iter(_rest(loads, purpose, bench, done)), None)


def _rest(loads: Sequence[Load], purpose: Purpose, bench: Bench, done: Sequence[Done]) -> list[Next]:
    """Repeat by repeat through the list, so that drift in time falls on every load alike."""
    ran = {(d.load, d.repeat) for d in done}
    limit = _limit(bench, done)
    return [
        Next(load, repeat, purpose)
        for repeat in range(bench.repeats)
        for load in loads
        if (load, repeat) not in ran and load.size <= limit
    ]


def _limit(bench: Bench, done: Sequence[Done]) -> float:
    """The lowest load at which a rule holds in every repeat so far: nothing above it is sent."""
    by_load: dict[Load, list[bool]] = {}
    for d in done:
        by_load.setdefault(d.load, []).append(broken_rule(bench, d, done) is not None)
    return min((load.size for load, broken in by_load.items() if all(broken)), default=math.inf)


def _lower(one: Done, done: Sequence[Done]) -> list[Done]:
    """The same repeat at lower loads."""
    return [d for d in done if d.load.size < one.load.size and d.repeat == one.repeat]


def _auto(bench: Bench, done: Sequence[Done], *, is_open: bool) -> Next | None:
    loads = [
        load_of(bench, bench.auto.start * bench.auto.factor**n, is_open=is_open) for n in range(bench.auto.max_stages)
    ]
    ran, limit = {(d.load, d.repeat) for d in done}, _limit(bench, done)
    for load in dict.fromkeys(loads):
        if load.size > limit:
            return None
        for repeat in range(bench.repeats):
            if (load, repeat) not in ran:
                return Next(load, repeat, "auto")
    return None


def _holds(bench: Bench, stages: Sequence[Done]) -> bool:
    """Most repeats keep every objective, the planned rate and the share of errors."""
    kept = 0
    for d in stages:
        stop = bench.stop
        late = stop.achieved_share is not None and d.rates.kept_up.value < stop.achieved_share  # NaN: not used
        wrong = stop.error_share is not None and d.figures.error_share > stop.error_share
        kept += not (late or wrong or missed_objectives(bench, d.figures))
    return kept * 2 > len(stages)


def bracket(bench: Bench, done: Sequence[Done]) -> tuple[float | None, float | None]:
    """(highest rate that holds below the lowest that doesn't, lowest rate that doesn't) among whole loads."""
    by_load: dict[Load, list[Done]] = {}
    for d in done:
        by_load.setdefault(d.load, []).append(d)
    whole = {load: _holds(bench, ds) for load, ds in by_load.items() if len(ds) >= bench.repeats}
    high = min((load.size for load, ok in whole.items() if not ok), default=None)
    low = max((load.size for load, ok in whole.items() if ok and (high is None or load.size < high)), default=None)
    return low, high


def _search(bench: Bench, done: Sequence[Done]) -> Next | None:
    ran: dict[Load, int] = {}
    for d in done:
        ran[d.load] = ran.get(d.load, 0) + 1
    for load, n in ran.items():
        if n < bench.repeats:
            return Next(load, n, "search")
    if len(ran) >= bench.search.max_stages:
        return None
    search, (low, high) = bench.search, bracket(bench, done)
    if search.low is not None and search.high is not None and len(ran) < 2:
        size = search.low if not ran else search.high
    elif low is None and high is None:
        size = bench.auto.start
    elif high is None and low is not None:
        size = low * bench.auto.factor
    elif low is None and high is not None:
        size = high / bench.auto.factor
    else:
        assert low is not None
        assert high is not None
        if high / low - 1 <= search.tolerance:
            return None
        size = math.sqrt(low * high)
    load = load_of(bench, size, is_open=True)
    return None if load in ran else Next(load, 0, "search")
