"""How much a server did per second: estimators that are right however few or many requests a window holds.

Closed loop, C in flight. Every place is a renewal process, so reward comes at (reward of a request) / (life of a
request) per place: rate = in_flight x sum(reward) / sum(life), over the requests that began in the window, whose number
is fixed beforehand or a stopping time (Wald), and with `in_flight` the mean over the window. With reward 1 that is
Little's law. Unlike a count of endings it has no error of up to C at either edge: exact at once for equal lives.

Open loop: open_loop_throughput.py.

Derivations, assumptions and what simulations show: docs/BENCH.md, "Throughput".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kvt_async.contract.formulas.request_lives import Bools, Floats, Lives
from kvt_async.contract.formulas.student import t_quantile

FEWEST_ROUNDS = 3.5  # less one request, which the window's edge may cost: fewer batches know too little of stalls
FEWEST_REQUESTS = 6
WANTED_LATENCIES = 6.0  # open loop: what bench.requests: auto asks for
WANTED_ROUNDS = 12  # closed loop: the same
WANTED_REQUESTS = 100
FALSE_LADDERS = 0.025  # of which something may be said that isn't so
RESOLUTION = 0.001  # no rate is known better than this, nor than one request in n
FEWEST_FOR_LENGTHS = 20  # requests with which the part of the lengths is told apart from the rest
MOST_BATCHES = 20
SHAPED = "the load changes as the stage runs: its parts have rates of their own"
SEEN_PACE, FEWEST_ARRIVALS = 0.1, 3  # of a reply must have come before its pace is known


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate per second, with the standard error of its logarithm and its degrees of freedom; NaN: it can't be told."""

    value: float
    se: float = math.nan
    df: float = math.inf
    seconds: float = math.nan  # looked at; bounds what was never seen at all

    def bound(self, level: float) -> float:
        """One-sided bound, above for level > 0.5, below for level < 0.5; never below 0, never the value itself."""
        if math.isnan(self.value) or math.isnan(self.se):
            return math.nan
        if self.value <= 0:
            return -math.log(1 - level) / self.seconds if level > 0.5 else 0.0
        t = t_quantile(max(level, 1 - level), max(1, int(min(self.df, 1001))))
        return self.value * math.exp(math.copysign(t * self.se, level - 0.5))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Two-sided interval of the rate."""
        return self.bound(alpha / 2), self.bound(1 - alpha / 2)


UNKNOWN = Rate(math.nan)


@dataclass(frozen=True, slots=True)
class Throughput:
    """The rates of one window, or of several put together.

    `arrivals`: requests due (open) or started (closed) per second.

    `by_share`: answered requests a second, each by the share of its life inside the window; `by_arrival`: output tokens
    a second, counted when they came. In a closed loop both are there to be compared, and where the first disagrees
    nothing is told. `reason`: why nothing can be told (all rates are NaN); `n_needed`: with how many requests it could.
    """

    seconds: float
    latency: float  # mean life of a request (closed) or latency before a queue grew (open)
    n: int
    requests: Rate
    input_tokens: Rate
    output_tokens: Rate
    total_tokens: Rate
    arrivals: Rate
    kept_up: Rate  # open: share of the arrivals that came out answered, as fast as they went in; closed: NaN
    by_share: float
    by_arrival: float
    spread: bool
    reason: str | None = None
    n_needed: int | None = None


def closed_loop(lives: Lives, concurrency: int, begin: float, end: float | None) -> Throughput:
    """`begin`: the first measured request started; `end`: the first place stayed empty, None: the window was killed.

    The first request of each place fills the server and is left out, whether it was called warm-up or not.
    """
    needed = max(WANTED_REQUESTS, WANTED_ROUNDS * concurrency)
    if lives.n <= concurrency:
        return nothing("no place was used twice", needed)
    a = max(begin, float(lives.begin[concurrency]))
    life = lives.end - lives.begin
    b = float(end) if end is not None else float(lives.end.max() - life.max())
    seconds = b - a
    inside = (lives.begin >= a) & (lives.begin < b)
    n = int(inside.sum())
    if seconds <= 0 or n < 2:
        return nothing("the window holds no whole request", needed)
    life = _undrained(lives, life, b) if lives.talks is None else lives.talks.life
    mean = float(life[inside].mean())
    if n < max(FEWEST_REQUESTS, FEWEST_ROUNDS * concurrency - 1):  # a number that doesn't depend on how long they took
        text = f"the window holds {n} {lives.noun}, {n / concurrency:.2g} rounds of {concurrency}: too few"
        return nothing(text, needed if n < needed else 2 * n, seconds, mean, n)
    overlap = np.clip(np.minimum(lives.end, b) - np.maximum(lives.begin, a), 0, None)
    in_flight = float(overlap.sum() / seconds)
    ok, answered = lives.ok[inside].astype(float), lives.answered[inside]
    rewards = np.stack(
        (answered, ok * lives.input_tokens[inside], ok * lives.output_tokens[inside], lives.started[inside]), axis=1
    )  # [n, 4]
    rewards = np.insert(rewards, 3, rewards[:, 1] + rewards[:, 2], axis=1)  # total tokens
    sizes = np.stack(
        (lives.input_tokens[inside], lives.output_tokens[inside], lives.started[inside], lives.idle[inside]), axis=1
    )
    means = rewards.mean(axis=0)
    influence = rewards / np.where(means > 0, means, 1.0) - (life[inside] / mean)[:, None]
    errors = _log_errors(influence, sizes, lives.begin[inside], (a, b), mean)
    done, fed, made, total, begun = (
        Rate(float(in_flight * value / mean), se, df, seconds) for value, (se, df) in zip(means, errors, strict=True)
    )
    shares = np.where(lives.ok & (life > 0), overlap / np.where(life > 0, life, 1.0), 0.0) * lives.answered
    by_share = float(shares.sum() / seconds)
    by_arrival = float(_arrived(lives, a, b).sum() / seconds)
    if made.value > 0 and by_arrival > 0:
        made = _made(lives, (a, b), mean, made, by_arrival)
        joint = (fed.value * fed.se + made.value * made.se) / (fed.value + made.value)
        total = Rate(fed.value + made.value, joint, min(fed.df, made.df), seconds)
    apart = abs(math.log(max(by_share, 1e-300) / done.value)) if done.value > 0 else 0.0
    if apart > max(_edges(of_each, n, concurrency) for of_each in (life[inside], lives.started[inside])):
        text = f"counted by their lives {by_share:.4g} requests/s were done, by Little's law {done.value:.4g}"
        return nothing(f"{text}: the load was not steady", 2 * n, seconds, mean, n)
    return Throughput(seconds, mean, n, done, fed, made, total, begun, UNKNOWN, by_share, by_arrival, lives.spread)


def together(parts: Sequence[Throughput]) -> Throughput:
    """Windows of one stage: sums over sums, by their lengths. Those that tell nothing are left out where others do."""
    rated = [part for part in parts if part.reason is None]
    if not rated:
        return max(parts, key=lambda part: part.n, default=nothing("nothing was sent", None))
    if len(rated) == 1:
        return rated[0]
    seconds = sum(part.seconds for part in rated)

    def joint(name: str) -> Rate:
        rates: list[Rate] = [getattr(part, name) for part in rated]
        value = sum(rate.value * rate.seconds for rate in rates) / seconds
        if not value > 0:
            return Rate(value, rates[0].se, rates[0].df, seconds)
        errors = [rate.value * rate.seconds / (value * seconds) * rate.se for rate in rates]
        return Rate(value, math.hypot(*errors), min(rate.df for rate in rates), seconds)

    def mean(name: str) -> float:
        return float(sum(getattr(part, name) * part.seconds for part in rated) / seconds)

    return Throughput(
        seconds=seconds,
        latency=mean("latency"),
        n=sum(part.n for part in rated),
        requests=joint("requests"),
        input_tokens=joint("input_tokens"),
        output_tokens=joint("output_tokens"),
        total_tokens=joint("total_tokens"),
        arrivals=joint("arrivals"),
        kept_up=joint("kept_up"),
        by_share=mean("by_share"),
        by_arrival=mean("by_arrival"),
        spread=any(part.spread for part in rated),
    )


def nothing(
    reason: str, n_needed: int | None, seconds: float = 0.0, latency: float = math.nan, n: int = 0
) -> Throughput:
    """The throughput of a window of which no rate can be told; `reason` says why."""
    no = UNKNOWN
    return Throughput(seconds, latency, n, no, no, no, no, no, no, math.nan, math.nan, False, reason, n_needed)


def growth_bounds(low: Rate, high: Rate, level: float) -> tuple[float, float]:
    """One-sided bounds, each at `level` (> 0.5), of log(high / low): by how much one load gives more than another."""
    if not (low.value > 0 and high.value > 0):
        return -math.inf, math.inf
    se = math.hypot(low.se, high.se)
    spread = low.se**4 / low.df + high.se**4 / high.df  # Welch's degrees of freedom
    df = se**4 / spread if spread > 0 else math.inf
    reach = t_quantile(level, max(1, int(min(df, 1001)))) * se
    step = math.log(high.value / low.value)
    return step - reach, step + reach


def _undrained(lives: Lives, life: Floats, b: float) -> Floats:
    """Lives as long as they would have been under the full load.

    Those that go on past the window's end run beside fewer others, and may be faster: they are reckoned at the pace
    that their reply had until then, where enough of it had come to know one.
    """
    straddles = (lives.begin < b) & (lives.end > b) & lives.ok & (lives.first < b)
    if not straddles.any():
        return life
    before = lives.arrival_s <= b
    n_all = np.bincount(lives.arrival_of, minlength=lives.n)
    n_before = np.bincount(lives.arrival_of[before], minlength=lives.n)
    newest = np.full(lives.n, -np.inf)
    np.maximum.at(newest, lives.arrival_of[before], lives.arrival_s[before])
    share = (n_before - 1) / np.maximum(n_all - 1, 1)
    known = straddles & (n_before >= FEWEST_ARRIVALS) & (share >= SEEN_PACE) & (share < 1)
    result = life.copy()
    waited, after = lives.first - lives.begin, lives.end - lives.finished
    result[known] = (waited + after)[known] + (newest - lives.first)[known] / share[known]
    return result


def _edges(life: Floats, n: int, concurrency: int) -> float:
    """By how much the two ways of counting may differ because lives lie across the window's edges."""
    squared = float(life.var() / life.mean() ** 2)
    return (concurrency * squared + 4 * math.sqrt(concurrency * (1 + squared) / 3) + 1) / n + 0.01


def _made(lives: Lives, window: tuple[float, float], latency: float, by_lives: Rate, value: float) -> Rate:
    """Output tokens as they came, `value` a second. Its error is the smaller of two: that of the same rate by lives and
    half of what the two differ by, which knows of equal lives in step; that of batches of the arrivals, which knows of
    a server that gives all it can, whoever gets it."""
    a, b = window
    apart = abs(math.log(value / by_lives.value)) / 2
    stepped = replace(by_lives, value=value, se=math.hypot(by_lives.se, apart))
    batches = Batches(lives.begin, window, latency)
    within = (lives.arrival_s > a) & (lives.arrival_s <= b)
    came = np.histogram(lives.arrival_s[within], np.linspace(a, b, batches.n + 1), weights=_arrived(lives, a, b))[0]
    noise = math.sqrt(float(came.var(ddof=1)) * batches.whole / batches.n) / float(came.mean())
    steady = Rate(value, max(noise, floor(lives.n)), float(batches.df), by_lives.seconds)
    return min(stepped, steady, key=lambda rate: rate.bound(0.975))


def _arrived(lives: Lives, a: float, b: float) -> Floats:
    within = (lives.arrival_s > a) & (lives.arrival_s <= b)
    result: Floats = weights(lives)[within]
    return result


def weights(lives: Lives) -> Floats:
    """Tokens that each arrival brings: a reply's, evenly over its arrivals."""
    per_arrival = lives.output_tokens / np.maximum(np.bincount(lives.arrival_of, minlength=lives.n), 1)
    result: Floats = np.where(lives.ok, per_arrival, 0.0)[lives.arrival_of]
    return result


def floor(n: int) -> float:
    """Standard error below which nothing is believed: an interval is one request in n wide at least."""
    return max(1 / n, RESOLUTION) / 2


def _log_errors(
    influence: Floats, sizes: Floats, when: Floats, window: tuple[float, float], latency: float
) -> list[tuple[float, float]]:
    """(standard error, degrees of freedom) of the mean of each column of `influence` [n, m].

    What the length of a request explains is independent from request to request, for lengths are drawn so. What is left
    (the server's noise and stalls, failures, waiting for others' long requests) strikes all places at once: it is
    judged by batches of two latencies, and with it what it has in common with the lengths.
    """
    n = len(influence)
    influence = influence - influence.mean(axis=0)
    sizes = sizes[:, varying(sizes)]
    columns = sizes.shape[1]
    explained = np.zeros_like(influence)
    if columns and n >= FEWEST_FOR_LENGTHS:
        centred = sizes - sizes.mean(axis=0)
        explained = centred @ np.linalg.lstsq(centred, influence, rcond=None)[0]
    of_lengths = (explained**2).sum(axis=0) / (n * max(n - 1 - columns, 1))
    batches = Batches(when, window, latency)
    rest = batches.products(influence - explained, influence - explained)
    common = 2 * batches.products(influence - explained, explained)
    deviation = influence.std(axis=0)
    skewness = (influence**3).mean(axis=0) / np.where(deviation > 0, deviation, 1.0) ** 3
    errors = []
    for drawn, other, skew in zip(of_lengths, rest + np.maximum(common, 0), skewness, strict=True):
        variance = float(drawn + other)
        spread = float(drawn**2 / max(n - 1 - columns, 1) + other**2 / batches.df)
        error = math.sqrt(variance) * (1 + float(skew) ** 2 / n)  # few draws of a long tail seldom have its end
        errors.append((max(error, floor(n)), variance**2 / spread if spread > 0 else math.inf))
    return errors


class Batches:
    """Equal parts of a window, two latencies long where it holds three of them, for the variance of a mean over it.

    A shock reaches the requests that are under way, so it is spread over those that began within a latency: part of it
    falls into the neighbouring batch, latency / (3 x length) of its square, which `products` gives back. Few batches of
    rare stalls are no normal sample: (1 + 1/n)^2 more, by simulation.
    """

    def __init__(self, when: Floats, window: tuple[float, float], latency: float, used: int = 1) -> None:
        a, b = window
        fit = (b - a) / max(2 * latency, 1e-12)
        self.n = max(2 + used, int(min(MOST_BATCHES, fit, len(when) / 2)))
        self.df = self.n - used
        self._cell = np.clip(((when - a) / (b - a) * self.n).astype(np.int64), 0, self.n - 1)
        self.whole = (1 + 1 / self.n) ** 2 / max(1 - latency * self.n / (b - a) / 3, 0.5)

    def products(self, left: Floats, right: Floats) -> Floats:
        """Covariance of the means of two values [n, m] a request, column by column."""
        products: Floats = (self._sums(left) * self._sums(right)).sum(axis=0)
        return products * self.whole * self.n / self.df / len(left) ** 2

    def _sums(self, values: Floats) -> Floats:
        """Sums of values [n, m] over each batch: [batches, m]."""
        columns = [np.bincount(self._cell, weights=column, minlength=self.n) for column in values.T]
        return np.stack(columns, axis=1)


def varying(sizes: Floats) -> Bools:
    """Which columns of `sizes` [n, k] aren't constant."""
    found: Bools = sizes.std(axis=0) > 1e-9 * np.maximum(sizes.mean(axis=0), 1e-300)
    return found
