"""Calibration of what is said beside accuracy: ratios of lengths, medians of places, and every sentence together.

Tables of scripts/calibrate.py. Lengths have long tails: the cells hold log-normal lengths, and answers that repeat
themselves until they are cut, 16 or 60 times as long as the others, in both arms or in one.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from simulated import ALPHA, Floats, Row, covered, error

from analyzer.stats.length_ratio import LengthRatio, length_ratio
from analyzer.stats.outcome_changes import AnswerTraits, EntryLayout, adjusted, changes, median_interval
from kvt_async.contract.vocabulary import Measure

Lengths = tuple[Floats, Floats]  # at full cache, here


def lognormal(rng: np.random.Generator, n: int, spread: float, alike: float, ratio: float) -> Lengths:
    """`alike`: the correlation of an answer's two lengths, on the log scale."""
    a, b = rng.normal(size=(2, n))
    return np.exp(spread * a), ratio * np.exp(spread * (alike * a + (1 - alike**2) ** 0.5 * b))


def looping(rng: np.random.Generator, n: int, share: float, times: float, *, both: bool) -> Lengths:
    """A share of the answers is `times` as long, here and, where `both`, at full cache, each drawn for itself."""
    full, here = lognormal(rng, n, 0.3, 0.5, 1.0)
    mean = float(np.exp(0.3**2 / 2))
    if both:
        full = np.where(rng.random(n) < share, times * mean, full)
    return full, np.where(rng.random(n) < share, times * mean, here)


WORLDS: dict[str, tuple[float, Callable[[np.random.Generator, int], Lengths]]] = {
    "log-normal .5, alike, 1.0": (1.0, lambda rng, n: lognormal(rng, n, 0.5, 0.8, 1.0)),
    "log-normal .5, alike, 1.4": (1.4, lambda rng, n: lognormal(rng, n, 0.5, 0.8, 1.4)),
    "log-normal 1.2, unlike, 1.0": (1.0, lambda rng, n: lognormal(rng, n, 1.2, 0.2, 1.0)),
    "log-normal 1.2, unlike, 2.0": (2.0, lambda rng, n: lognormal(rng, n, 1.2, 0.2, 2.0)),
    "2% of both x 16": (1.0, lambda rng, n: looping(rng, n, 0.02, 16, both=True)),
    "10% of both x 16": (1.0, lambda rng, n: looping(rng, n, 0.10, 16, both=True)),
    "2% of both x 60": (1.0, lambda rng, n: looping(rng, n, 0.02, 60, both=True)),
    "10% here x 16": (2.5, lambda rng, n: looping(rng, n, 0.10, 16, both=False)),
    "2% here x 16": (1.3, lambda rng, n: looping(rng, n, 0.02, 16, both=False)),
}


def lengths(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """Ratios of lengths: false growth or shrinking where the truth is 1, and coverage of the interval."""
    for name, (truth, world) in WORLDS.items():
        for n in sizes:
            for per_context in (1, 5):
                rng = np.random.default_rng([seed, n, per_context, *name.encode()])
                where = f"{name}, n {n}" + ("" if per_context == 1 else f", {per_context} a context")
                seen = [_ratio(*world(rng, n), per_context) for _ in range(experiments)]
                if truth == 1.0:
                    proven = [one.ratio or 1.0 for one in seen if one.p is not None and one.p < ALPHA]
                    yield error(where, "false growth", sum(r > 1 for r in proven) / experiments, experiments)
                    yield error(where, "false shrinking", sum(r < 1 for r in proven) / experiments, experiments)
                ends = [(one.low or 0.0, one.high or np.inf) for one in seen if one.p is not None]
                if ends:
                    row = covered(where, sum(low <= truth <= high for low, high in ends) / len(ends), len(ends))
                    yield (
                        row if "here" not in name else (*row[:3], "")
                    )  # no sample tells of answers that it has none of


def _ratio(full: Floats, here: Floats, per_context: int) -> LengthRatio:
    n = len(full)
    return length_ratio(full, here, np.arange(n) // per_context, np.full(n, 1 / n), ALPHA)


def medians(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """Where texts part: coverage of the median's interval, places geometric, those of a context alike."""
    truth = float(np.ceil(np.log(0.5) / np.log(1 - 1 / 60)))  # smallest place with half of all at or below
    for n in sizes:
        for per_context in (1, 5):
            rng, hit, told = np.random.default_rng([seed, n, per_context]), 0, 0
            for _ in range(experiments):
                cluster = np.arange(n) // per_context
                place = rng.geometric(1 / 60, n).astype(float)
                place = np.where(rng.random(n) < 0.5, place[cluster * per_context], place)
                low, high = median_interval(place, cluster, ALPHA)
                if low is not None and high is not None:
                    told, hit = told + 1, hit + (low <= truth <= high)
            if told:
                where = f"places, n {n}" + ("" if per_context == 1 else f", {per_context} a context")
                yield covered(where, hit / told, told)


def times(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """Ratios of times request by request, of which the truth is 1: coverage of the interval. Noise has a long tail
    (2% of the requests take 10 times as long); in `slow spells` a run is 1.3 times slower for 10 requests in a row, a
    fifth of the time: by itself (levels one after the other), or together with full cache (interleaved)."""
    for n in sizes:
        for name in ("noise alone", "slow spells, one level after the other", "slow spells, interleaved"):
            rng, hit, told = np.random.default_rng([seed, n, len(name)]), 0, 0
            for _ in range(experiments):
                length = rng.lognormal(0, 0.5, n)
                spells = [np.repeat(rng.random(n // 10 + 1) < 0.2, 10)[:n] for _ in range(2)]
                spells = spells if "after" in name else [spells[0], spells[0]]
                full, here = (
                    length * rng.lognormal(0, 0.1, n) * np.where(rng.random(n) < 0.02, 10, 1)
                    * np.where(spell & (name != "noise alone"), 1.3, 1)
                    for spell in spells
                )  # fmt: skip
                low, high = median_interval(here / full, np.arange(n), ALPHA)
                if low is not None and high is not None:
                    told, hit = told + 1, hit + (low <= 1 <= high)
            if told:
                row = covered(f"times, {name}, n {n}", hit / told, told)
                yield (*row[:3], "") if "after" in name else row  # the machine did that: no sample tells it apart


def sentences(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """Nothing but noise at three budgets: the chance that anything at all is said to change."""
    for n in sizes:
        for flips in (0.02, 0.3):
            rng, wrong = np.random.default_rng([seed, n, round(100 * flips)]), 0
            layout = EntryLayout(np.arange(n), np.arange(n) % 3)
            for _ in range(experiments // 4):
                rows = [row for run in _noise(rng, n, flips, 3) for row in changes(*run, layout, ALPHA)]
                wrong += any(p is not None and p < ALPHA for p in adjusted(rows))
            yield error(f"noise {flips:g}, n {n}", "any sentence", wrong / (experiments // 4), experiments // 4, ALPHA)


def outcome_power(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """One real change at one of three budgets, 2% of answers drawn anew in every run: the chance that it is said."""
    truths: dict[str, Measure] = {"answers grow 1.4 x": Measure.TOKENS, "cut off 10% -> 22%": Measure.CUT_OFF}
    for name, measure in truths.items():
        for n in sizes:
            rng, right = np.random.default_rng([seed, n, *name.encode()]), 0
            layout = EntryLayout(np.arange(n), np.arange(n) % 3)
            for _ in range(experiments // 10):
                arms = list(_noise(rng, n, 0.02, 3))
                changed = arms[-1][1].of[measure]
                if measure == Measure.TOKENS:
                    changed *= 1.4 * rng.lognormal(0, 0.3, changed.shape) / np.exp(0.3**2 / 2)
                else:
                    changed[(changed == 0) & (rng.random(changed.shape) < 0.12 / 0.9)] = 1
                rows = [(i, row) for i, run in enumerate(arms) for row in changes(*run, layout, ALPHA)]
                p_of = zip(rows, adjusted(row for _, row in rows), strict=True)
                right += any(i == 2 and row.measure == measure and p is not None and p < ALPHA for (i, row), p in p_of)
            yield f"{name}, n {n}", "said", right / (experiments // 10), ""


Arms = tuple[AnswerTraits, AnswerTraits, list[AnswerTraits]]


def _noise(rng: np.random.Generator, n: int, flips: float, budgets: int) -> Iterator[Arms]:
    """(full cache, a budget, repeats): every answer of every run is drawn anew with this chance."""
    hard = {m: rng.random(n) < share for m, share in _OFTEN.items()}
    length, same = rng.lognormal(3, 0.8, n), rng.random(n) < 0.9

    def run() -> AnswerTraits:
        anew = rng.random(n) < flips
        values = {m: np.where(anew, rng.random(n) < share, hard[m]) for m, share in _OFTEN.items()}
        values[Measure.TOKENS] = np.where(anew, rng.lognormal(3, 0.8, n), length)
        values[Measure.IDENTICAL] = np.where(anew, rng.random(n) < 0.5, same)
        values[Measure.DIVERGENCE] = np.where(values[Measure.IDENTICAL] > 0, np.nan, rng.geometric(1 / 60, n))
        return AnswerTraits({m: v.astype(np.float32)[:, None] for m, v in values.items()})

    full, repeat = run(), run()
    for _ in range(budgets):
        yield full, run(), [repeat]


_OFTEN = {Measure.CUT_OFF: 0.1, Measure.EMPTY: 0.02, Measure.REPETITION: 0.05, Measure.FORMAT_ERROR: 0.0}

TABLES = (lengths, medians, times, sentences, outcome_power)
