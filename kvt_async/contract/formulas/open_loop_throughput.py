"""The rate that a server kept up with in an open loop; the closed one and what both share: throughput.py."""

import math
from dataclasses import replace

import numpy as np

from kvt_async.contract.formulas.request_lives import Floats, Ints, Lives
from kvt_async.contract.formulas.student import t_quantile
from kvt_async.contract.formulas.throughput import (
    MOST_BATCHES,
    WANTED_LATENCIES,
    WANTED_REQUESTS,
    Rate,
    Throughput,
    closed_loop,
    floor,
    nothing,
    varying,
    weights,
)
from kvt_async.contract.vocabulary import EndReason

WHOLE = (EndReason.FINISHED, EndReason.STOP_RULE)  # bench_window_ends.reason of windows in which nothing was broken off
KEPT_UP = 0.95  # share of the arrivals that must come out, as fast as they go in
LEVEL = 0.975  # one-sided, for calling a server behind
FEWEST_CELLS = 8
FEWEST_LATENCIES = 3.0  # a shorter window tells nothing
FEWEST_REQUESTS = 10
FIRST_FEW = 3
BURST, BURST_ERRORS = 1.5, 3.0  # times the mean rate, and standard errors of a Poisson count beyond: no steady rate
SLOW_MEMORY = 0.7  # how much of a random walk is in a queue near its server's capacity, by simulation


def of_window(lives: Lives, concurrency: int | None, until_s: float | None, *, whole: bool) -> Throughput:
    """`concurrency` None: open loop. `until_s`: the first place stayed empty (closed); `whole` False: the window was
    killed or interrupted, and what was under way is missing."""
    measured = lives.begin[lives.measured]
    if concurrency is None:
        rates = open_loop(lives, killed=not whole)
    elif not len(measured):
        return nothing("no measured request ended", None)
    else:
        rates = closed_loop(lives, concurrency, float(measured[0]), until_s if whole else None)
    if lives.talks is not None and rates.n_needed is not None:  # it counts conversations: people ask for requests
        return replace(rates, n_needed=math.ceil(rates.n_needed * float(lives.started.mean())))
    return rates


def open_loop(lives: Lives, *, killed: bool = False) -> Throughput:
    """Of one window: from a latency after its first request fell due, when the server was full, to its last due one.

    Whether the server kept up is judged by its debt: requests that would be over by now, had each taken as long as
    requests of its length took at the window's head, less those that are over. A constant latency of any length makes
    no debt; a queue makes one that grows with every second. Share kept up with = 1 - growth of the debt / arrivals.

    A server that is far behind from the first second on has no head to go by: its window is too short for the latency
    that its queue makes. It is told where the fastest of the first few requests as the measure, and the second half of
    the window alone, prove it.
    """
    answered = np.flatnonzero(lives.ok)
    if not len(answered):
        return _nothing_answered(lives)
    head = answered[: max(FEWEST_REQUESTS, lives.n // 10)]
    found, _ = _from_head(lives, head, killed=killed)
    if found.reason is None:
        return found
    took = lives.finished - lives.begin
    later, behind = _from_head(lives, head, killed=killed, latency=float(took[answered[:FIRST_FEW]].min()))
    return later if behind and later.requests.value > 0 else found


def _from_head(lives: Lives, head: Ints, *, killed: bool, latency: float | None = None) -> tuple[Throughput, bool]:
    """(throughput, whether the server is proven to be behind). `head`: the requests that show what is usual; `latency`:
    another measure for the window, of which the second half alone is looked at then."""
    due, took = lives.begin, lives.finished - lives.begin
    usual, half = _usual(lives, took, head), latency is not None
    latency = float(np.median(took[head])) if latency is None else latency
    until = float(lives.end.max() - took.max()) if killed else math.inf
    inside = lives.measured & (due >= due[0] + latency) & (due <= until)
    n = int(inside.sum())
    planned = due[lives.measured] if lives.measured.any() else due
    span = float(planned[-1] - planned[0])
    pace = (len(planned) - 1) / span if span > 0 else 0.0
    wanted = max(WANTED_REQUESTS, math.ceil(WANTED_LATENCIES * latency * pace))
    if n < 2:
        return nothing(f"no {lives.noun[:-1]} fell due after the server was full", wanted, latency=latency), False
    a, b = float(due[inside][0]), float(due[inside][-1])
    seconds = b - a
    if n < FEWEST_REQUESTS or seconds < FEWEST_LATENCIES * latency:
        needed = wanted if n < wanted else 2 * n
        return nothing(_too_short(lives, n, seconds, latency), needed, seconds, latency, n), False
    if half:
        inside &= due >= (a + b) / 2
        a, n = float(due[inside][0]), int(inside.sum())
        seconds = b - a
        if n < FEWEST_REQUESTS // 2 or seconds <= 0:
            return nothing(_too_short(lives, n, seconds, latency), wanted, seconds, latency, n), False
    arrivals = Rate((n - 1) / seconds, floor(n), math.inf, seconds)
    grid = np.linspace(a, b, max(FEWEST_CELLS, min(MOST_BATCHES, int(seconds / max(latency, 1e-9)))) + 1)
    over, owed = _by(lives.finished, grid), _by(due + usual, grid)
    df = float(len(grid) - 3)
    rise = float(np.diff((owed - over)[[0, -1]])[0])
    kept = min(max(1 - rise / (n - 1), 1 / n), 1.0)  # nothing comes out for long that has not gone in
    # of a server that is behind, what comes out is steadier than what goes in
    of_debt = max(_wander(owed - over, grid), SLOW_MEMORY * _walk(owed - over)) / (n - 1)
    strays = min(of_debt, kept * _walk(over) / max(float(over[-1] - over[0]), 1.0))
    strays = max(strays, _of_closing_burst(due, owed - over, grid) / (n - 1))
    t = t_quantile(LEVEL, int(df))
    error = max(math.log1p(t * strays / kept) / t, floor(n))  # the share's error is no share of itself
    ok = lives.ok[inside].astype(float)
    answered = float(ok.mean())
    if answered == 0:
        return _nothing_answered(lives), False
    answered, answered_error = _share(lives.answered[inside], lives.started[inside], due[inside], grid)
    each = float(lives.started[inside].mean())  # requests that an arrival brings: turns of a conversation
    arrivals = replace(arrivals, value=arrivals.value * each)
    kept_up = Rate(kept * answered, math.hypot(error, answered_error), df, n - 1.0)
    behind = Rate(kept, error, df).bound(LEVEL) < KEPT_UP
    if behind:  # then what came out is what the server can do, whatever went in
        ended = over if lives.talks is None else _by(lives.talks.ended, grid)
        done = float(np.diff(ended[[0, -1]])[0]) / seconds
        error = max(_walk(ended) / max(done * seconds, 1.0), floor(n))
    else:
        done = arrivals.value * kept
    requests = Rate(done * answered, math.hypot(error, answered_error), df, seconds)
    good = inside & lives.ok

    def tokens(counts: Floats) -> Rate:
        mean = float(counts[good].sum() / lives.answered[good].sum())
        spread = float((counts[good] - mean * lives.answered[good]).std()) / float(lives.answered[good].mean())
        drawn = spread / math.sqrt(int(good.sum())) / mean if mean > 0 else 0.0
        return Rate(requests.value * mean, math.hypot(requests.se, drawn), df, seconds)

    came = np.histogram(lives.arrival_s, grid, weights=weights(lives))[0]
    by_arrival = float(came.sum() / seconds)
    fed, made = tokens(lives.input_tokens), tokens(lives.output_tokens)
    if behind and by_arrival > 0:
        noise = float(came.std(ddof=1) / came.mean()) / math.sqrt(len(came))
        made = Rate(by_arrival, max(noise, floor(n)), len(came) - 1.0, seconds)
    total = fed.value + made.value
    joint = (fed.value * fed.se + made.value * made.se) / total if total > 0 else floor(n)
    overlap = np.clip(np.minimum(lives.finished, b) - np.maximum(due, a), 0, None)
    by_share = float((lives.answered * overlap / np.where(took > 0, took, 1.0))[lives.ok].sum() / seconds)
    throughput = Throughput(
        seconds=seconds,
        latency=latency,
        n=n,
        requests=requests,
        input_tokens=fed,
        output_tokens=made,
        total_tokens=Rate(total, joint, min(fed.df, made.df), seconds),
        arrivals=arrivals,
        kept_up=kept_up,
        by_share=by_share,
        by_arrival=by_arrival,
        spread=lives.spread,
    )
    return throughput, behind


def _usual(lives: Lives, took: Floats, head: Ints) -> Floats:
    """What requests of each one's length took at the head of the window, seconds [n]."""
    busy = took[head] - lives.idle[head]  # thinking takes as long as it was planned to
    sizes = np.stack((lives.input_tokens, lives.output_tokens), axis=1)
    sizes = sizes[:, varying(sizes[head])]
    if not sizes.shape[1]:
        return float(np.median(busy)) + lives.idle
    design = np.column_stack((np.ones(lives.n), sizes))
    fitted: Floats = design @ np.linalg.lstsq(design[head], busy, rcond=None)[0]
    return np.clip(fitted, 0, None) + lives.idle


def _by(instants: Floats, grid: Floats) -> Floats:
    """How many requests have come by each instant of the grid."""
    return np.searchsorted(np.sort(instants), grid, side="right").astype(np.float64)


def _of_closing_burst(due: Floats, debt: Floats, grid: Floats) -> float:
    """How much the debt grew while the window's arrivals ended in a burst: what is under way then proves nothing, for
    nobody saw whether it would have been made good. 0 of arrivals that are no denser at the end than before."""
    came = np.diff(_by(due, grid))
    mean, cells = float(came.mean()), np.arange(1, len(came) // 2 + 1)
    closing = np.cumsum(came[::-1])[: len(cells)]  # of the last 1, 2, ... cells
    dense = cells[closing > BURST * cells * mean + BURST_ERRORS * np.sqrt(cells * mean)]
    return max(0.0, float(debt[-1] - debt[-1 - int(dense[-1])])) if len(dense) else 0.0


def _wander(count: Floats, grid: Floats) -> float:
    """Standard error of a count's rise over the grid, from how far it strays from a straight line."""
    line = np.polyfit(grid - grid[0], count, 1)
    rest = count - np.polyval(line, grid - grid[0])
    return math.sqrt(2 * float((rest**2).sum()) / (len(grid) - 2))


def _walk(count: Floats) -> float:
    """The same, of a count whose rises in parts of the grid have nothing to do with each other."""
    steps = np.diff(count)
    return float(steps.std(ddof=1)) * math.sqrt(len(steps))


def _share(answered: Floats, started: Floats, when: Floats, grid: Floats) -> tuple[float, float]:
    """The share answered and the standard error of its logarithm, by parts of the window: failures come in bursts."""
    share = float(answered.sum() / started.sum())
    if share in (0.0, 1.0):
        return share, 0.0
    cells = len(grid) - 1
    cell = np.clip(np.searchsorted(grid, when, side="right") - 1, 0, cells - 1)
    sums = np.bincount(cell, weights=answered - share * started, minlength=cells)
    return share, math.sqrt(float((sums**2).sum()) * cells / (cells - 1)) / float(started.sum()) / share


def _nothing_answered(lives: Lives) -> Throughput:
    """A rate of 0 where requests were due and none was answered."""
    due = lives.begin[lives.measured]
    if len(due) < FEWEST_REQUESTS or due[-1] <= due[0]:
        return nothing("nothing was answered", WANTED_REQUESTS, n=len(due))
    seconds = float(due[-1] - due[0])
    zero = Rate(0.0, floor(len(due)), math.inf, seconds)
    arrivals = Rate((len(due) - 1) / seconds, floor(len(due)), math.inf, seconds)
    return Throughput(
        seconds,
        math.nan,
        len(due),
        zero,
        zero,
        zero,
        zero,
        arrivals,
        replace(zero, seconds=len(due) - 1.0),
        0.0,
        0.0,
        False,
    )


def _too_short(lives: Lives, n: int, seconds: float, latency: float) -> str:
    if n < FEWEST_REQUESTS:
        return f"the window holds {n} {lives.noun}, fewer than {FEWEST_REQUESTS}"
    lasts = "latencies" if lives.talks is None else "times a conversation's length"
    return f"the window lasts {seconds / latency:.2g} {lasts}, less than {FEWEST_LATENCIES:g}"
