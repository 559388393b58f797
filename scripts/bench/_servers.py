"""Servers of known speed and the loads of a bench, as arithmetic: many runs at once, none of them takes any time.

Every function works on arrays [runs, requests]. Lengths are in tokens of mean 1, so a request of mean length takes
`LATENCY` seconds alone. What comes out are `Lives`, the input of kvt_async.contract.formulas.throughput.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvt_async.contract.formulas.request_lives import Lives

Floats = npt.NDArray[np.float64]
LATENCY = 2.0
TTFT_SHARE = 0.2  # of a mean request's life, whatever its length
ARRIVALS = 8  # of output, per reply
TOKENS = 128.0  # a mean reply


@dataclass(frozen=True, slots=True)
class Server:
    """kind: `free` gives every request its own pace, however many there are; `fifo` and `shared` work on `places`
    requests at once at full pace (the others wait their turn, or all share). `noise`: deviation of log pace from
    request to request. `stalls_per_latency`: the whole server stands still so often, `stall` latencies on average."""

    kind: str = "free"
    places: int = 0
    noise: float = 0.0
    stalls_per_latency: float = 0.0
    stall: float = 0.0
    fails: float = 0.0  # share of requests that end in a failure, somewhere within their life

    def capacity(self, concurrency: int) -> float:
        """Requests a second in the long run, answered or not, of mean length, with so many in flight."""
        n = concurrency if self.kind == "free" else min(concurrency, self.places)
        life = LATENCY * (1 - self.fails / 2) * (1 + self.stalls_per_latency * self.stall)
        return n / life


def lengths(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """`equal`, `uniform` (a quarter to seven quarters of the mean) or `heavy` (lognormal, deviation = mean)."""
    if kind == "equal":
        return np.ones(shape)
    if kind == "uniform":
        return rng.uniform(0.25, 1.75, shape)
    sigma = np.sqrt(np.log(2))
    found: Floats = np.exp(rng.normal(-(sigma**2) / 2, sigma, shape))
    return found


def closed_runs(
    server: Server, concurrency: int, n: int, n_warm_up: int, kind: str, runs: int, rng: np.random.Generator
) -> Iterator[tuple[Lives, float, float]]:
    """(lives, first measured start, first empty place) of each run."""
    total = n + n_warm_up
    size = lengths(kind, (runs, total), rng)
    work = (
        LATENCY
        * (TTFT_SHARE + (1 - TTFT_SHARE) * size)
        * np.exp(rng.normal(-(server.noise**2) / 2, server.noise, size.shape) if server.noise else 0.0)
    )
    ok = rng.random(size.shape) >= server.fails
    work = np.where(ok, work, work * rng.random(size.shape))
    if server.kind == "fifo" and concurrency > server.places:
        begin, serve, end = _queue(work, concurrency, server.places)
    else:
        begin, end = _places(work, concurrency)
        serve = begin
    first = serve + np.minimum(LATENCY * TTFT_SHARE, end - serve)
    steps = np.linspace(0, 1, ARRIVALS)
    text = first[..., None] + (end - first)[..., None] * steps
    last = np.sort(end, axis=1)[:, total - concurrency] if total >= concurrency else end.min(axis=1)
    if server.kind == "shared" and concurrency > server.places:
        clock = [_shared_clock(end[r], concurrency, server.places) for r in range(runs)]
    elif server.stalls_per_latency:
        clock = [_stalled_clock(float(end[r].max()), server, rng) for r in range(runs)]
    else:
        clock = []
    for r in range(runs):

        def told(instants: Floats, r: int = r) -> Floats:
            return np.interp(instants, *clock[r]) if clock else instants

        lives = _lives(
            told(begin[r]),
            told(end[r]),
            told(first[r]),
            told(text[r].ravel()),
            ok[r],
            size[r],
            np.arange(total) >= n_warm_up,
        )
        yield lives, float(told(begin[r, n_warm_up : n_warm_up + 1])[0]), float(told(last[r : r + 1])[0])


def open_runs(
    server: Server,
    rate: float,
    n: int,
    n_warm_up: int,
    kind: str,
    runs: int,
    rng: np.random.Generator,
    *,
    constant: bool = False,
) -> Iterator[Lives]:
    """Lives of each run of a schedule of `rate` requests a second."""
    total = n + n_warm_up
    gaps = np.ones((runs, total)) if constant else rng.standard_exponential((runs, total))
    due = np.cumsum(gaps, axis=1) / rate
    size = lengths(kind, due.shape, rng)
    work = (
        LATENCY
        * (TTFT_SHARE + (1 - TTFT_SHARE) * size)
        * np.exp(rng.normal(-(server.noise**2) / 2, server.noise, size.shape) if server.noise else 0.0)
    )
    ok = rng.random(size.shape) >= server.fails
    work = np.where(ok, work, work * rng.random(size.shape))
    measured = np.arange(total) >= n_warm_up
    serve = due
    if server.kind == "fifo":
        serve = _turns(due, work, server.places)
    end = serve + work
    first = serve + np.minimum(LATENCY * TTFT_SHARE, work)
    steps = np.linspace(0, 1, ARRIVALS)
    for r in range(runs):
        b, e, f = due[r], end[r], first[r]
        text = (f[:, None] + (e - f)[:, None] * steps).ravel()
        if server.kind == "shared":
            e, grid, attained = _shared(b, work[r], server.places)
            at = np.interp(b, grid, attained)
            goal = (
                at[:, None]
                + np.minimum(LATENCY * TTFT_SHARE, work[r])[:, None]
                + (work[r] - np.minimum(LATENCY * TTFT_SHARE, work[r]))[:, None] * steps
            )
            text = np.interp(goal.ravel(), attained, grid)
            f = text[::ARRIVALS]
        elif server.stalls_per_latency:
            worked, passed = _stalled_clock(float(e.max()) * 2, server, rng)
            began = np.interp(b, passed, worked)  # the schedule goes on while the server stands still
            e, f = (np.interp(began + x - b, worked, passed) for x in (e, f))
            text = np.interp(np.repeat(began - b, ARRIVALS) + text, worked, passed)
        yield _lives(b, e, f, text, ok[r], size[r], measured)


def _lives(
    begin: Floats,
    end: Floats,
    first: Floats,
    text: Floats,
    ok: npt.NDArray[np.bool_],
    size: Floats,
    measured: npt.NDArray[np.bool_],
) -> Lives:
    order = np.argsort(begin, kind="stable")
    owner = np.repeat(np.arange(len(begin)), ARRIVALS)
    place = np.empty(len(begin), dtype=np.int64)
    place[order] = np.arange(len(begin))
    spoke = ok[owner]
    return Lives(
        begin[order],
        end[order],
        end[order],
        first[order],
        ok[order],
        measured[order],
        np.full(len(begin), 512.0),
        TOKENS * size[order],
        text[spoke],
        place[owner][spoke],
        False,
    )


def _places(work: Floats, concurrency: int) -> tuple[Floats, Floats]:
    """(begin, end) where each place goes on with the next request as soon as it is free."""
    runs, total = work.shape
    free, rows = np.zeros((runs, concurrency)), np.arange(runs)
    begin, end = np.empty_like(work), np.empty_like(work)
    for i in range(total):
        place = free.argmin(axis=1)
        begin[:, i] = free[rows, place]
        end[:, i] = free[rows, place] = begin[:, i] + work[:, i]
    return begin, end


def _queue(work: Floats, concurrency: int, places: int) -> tuple[Floats, Floats, Floats]:
    """(begin, served from, end): more in flight than places; served in the order in which they came."""
    serve, end = _places(work, places)  # some are always waiting, so no place is idle
    freed = np.sort(end, axis=1)
    begin = np.zeros_like(work)
    begin[:, concurrency:] = freed[:, : work.shape[1] - concurrency]
    return begin, serve, end


def _turns(due: Floats, work: Floats, places: int) -> Floats:
    """Served from: the first place that is free once it is due."""
    runs, total = work.shape
    free, rows = np.zeros((runs, places)), np.arange(runs)
    serve = np.empty_like(work)
    for i in range(total):
        place = free.argmin(axis=1)
        serve[:, i] = np.maximum(due[:, i], free[rows, place])
        free[rows, place] = serve[:, i] + work[:, i]
    return serve


def _shared_clock(end: Floats, concurrency: int, places: int) -> tuple[Floats, Floats]:
    """(work that each has had, seconds): places are shared by all in flight, whose number falls in the drain."""
    total = len(end)
    ends = np.sort(end)[max(total - concurrency, 0) :]
    work = np.concatenate(([0.0], ends))
    left = np.minimum(np.arange(len(ends), 0, -1), concurrency)
    pace = np.maximum(left / places, 1.0)
    return work, np.concatenate(([0.0], np.cumsum(np.diff(work) * pace)))


def _stalled_clock(until: float, server: Server, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(time that the server worked, time that passed)."""
    n = rng.poisson(server.stalls_per_latency * until / LATENCY)
    at = np.sort(rng.uniform(0, until, n))
    lasts = rng.exponential(server.stall * LATENCY, n)
    worked = np.concatenate(([0.0], np.repeat(at, 2), [until + 1]))
    stood = np.concatenate(([0.0], np.cumsum(np.stack((np.zeros(n), lasts), axis=1).ravel()), [lasts.sum()]))
    worked = worked + np.arange(len(worked)) * 1e-9  # strictly rising, as an interpolation wants it
    return worked, worked + stood


def _shared(due: Floats, work: Floats, places: int) -> tuple[Floats, Floats, Floats]:
    """(end, grid, work that each had had by then) of an open loop whose places are shared by all in flight."""
    end = np.empty_like(due)
    grid, attained, goals = [0.0], [0.0], list[tuple[float, int]]()
    now = done = 0.0
    for i in [*range(len(due)), -1]:
        until = due[i] if i >= 0 else np.inf
        while goals:
            pace = min(1.0, places / len(goals))
            reach = now + (goals[0][0] - done) / pace
            if reach > until:
                break
            now, (done, who) = reach, heapq.heappop(goals)
            end[who] = now
            grid.append(now)
            attained.append(done)
        if i < 0:
            break
        if goals:
            done += (until - now) * min(1.0, places / len(goals))
        now = until
        grid.append(now)
        attained.append(done)
        heapq.heappush(goals, (done + work[i], i))
    return end, np.array(grid), np.array(attained)
