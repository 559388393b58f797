"""Does the verdict keep its promises? Simulated experiments with a known truth, judged by the analyzer's own code.

    python scripts/calibrate.py                    # an hour: every table
    python scripts/calibrate.py --experiments 400 --tables errors,power

Each cell simulates whole experiments (bins, budgets, paired scores with noise), runs the tests that `kvt analyze` runs
and counts false claims, found transitions or covered truths. Seeded: the same command prints the same figures. The
last column says whether the bar of docs/STATISTICS.md holds, Monte-Carlo error allowed for.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import calibrate_comparisons
import calibrate_outcomes
import calibrate_sentences
import calibrate_suites
import calibrate_units
import numpy as np
from simulated import ALPHA, MARGIN, Row, Truth, answers, error, rate_of, simulate

from analyzer.stats.bootstrap import Columns, percentile_interval, resample_means
from analyzer.stats.half_loss import half_loss
from analyzer.stats.interim import FOCUS, look_of
from analyzer.stats.transition import BudgetTest, Claims, Grid, against_full, claims
from analyzer.summarise.bin_stats import accuracy_interval, bin_weights
from kvt_async.data.focus import BinState, allot, spread_of, together


def judged(truth: Truth, rng: np.random.Generator) -> Claims:
    """Simulate one experiment and say what the analyzer would claim over all bins."""
    grid = simulate(truth, rng)
    names = [name for name in grid.score if name != "full"]
    tests = [
        against_full(grid, "full", name, 1 - (i + 1) / (len(names) + 1), -1, margin=MARGIN, alpha=None)
        for i, name in enumerate(names)
    ]
    return claims(tests, ALPHA / 2)


def share(truth: Truth, experiments: int, seed: int, event: Callable[[Claims], bool]) -> float:
    rng = np.random.default_rng([seed, truth.n, len(truth.loss)])
    return sum(event(judged(truth, rng)) for _ in range(experiments)) / experiments


def errors(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """False claims: a loss where there is none, safe where the drop is the margin, beyond the margin where it is it."""
    for kind in ("binary", "graded"):
        at_margin = MARGIN / Truth(1, ()).base
        for n in sizes:
            for flips in (0.0, 0.1, 0.3):
                for budgets in (1, 8):
                    none = Truth(n, (0.0,) * budgets, kind, flips=flips)
                    rate = share(none, experiments, seed, lambda c: c.loss is not None)
                    yield error(f"{kind} n={n} flips={flips:g} budgets={budgets + 1}", "false loss", rate, experiments)
                for uneven in (False, True):
                    there = Truth(n, (at_margin,) * 2, kind, flips=flips, uneven=uneven)
                    where = f"{kind} n={n} flips={flips:g}" + (" all in one bin" if uneven else "")
                    found = [
                        judged(there, rng) for rng in [np.random.default_rng([seed, n])] for _ in range(experiments)
                    ]
                    yield error(where, "false safe", rate_of(found, lambda c: c.safe is not None), experiments)
                    yield error(where, "false broken", rate_of(found, lambda c: c.broken is not None), experiments)


def clustered(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """The same where five questions share a context and are lost together."""
    for n in [size for size in sizes if size >= 25]:
        there = Truth(n, (MARGIN / 0.6,), flips=0.1, cluster=5)
        found = [judged(there, rng) for rng in [np.random.default_rng([seed, n])] for _ in range(experiments)]
        yield error(f"clusters of 5, n={n}", "false safe", rate_of(found, lambda c: c.safe is not None), experiments)
        none = Truth(n, (0.0,), flips=0.3, cluster=5)
        rate = share(none, experiments, seed, lambda c: c.loss is not None)
        yield error(f"clusters of 5, n={n}", "false loss", rate, experiments)


def power(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """What is found when it is there; base accuracy 0.6, 10% of answers drawn anew."""
    cliff = (0.0, 0.0, 0.0, 0.0, 0.1, 0.4, 0.8)
    even = tuple(0.5 * (i + 1) / 7 for i in range(7))
    for kind in ("binary", "graded"):
        for name, loss, bar_n in (("cliff", cliff, 25), ("even decline to half", even, 50)):
            for n in sizes:
                rate = share(Truth(n, loss, kind, flips=0.1), experiments, seed, lambda c: c.loss is not None)
                bar = 0.95 if n >= bar_n and kind == "binary" else 0.0
                yield f"{kind} n={n} {name}", "loss found", rate, "ok" if rate >= bar else f"below {bar}"
    for n in (75, 100, 150, 250, 400):
        for flips in (0.0, 0.02, 0.1):
            rate = share(Truth(n, (0.0,), base=0.9, flips=flips), experiments, seed, lambda c: c.safe is not None)
            yield f"binary n={n} base=0.9 flips={flips:g}, no drop", "proven safe", rate, ""


def coverage(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """95% intervals of one bin's mean, as `ci: auto` makes them."""
    for kind in ("binary", "graded"):
        for base in (0.05, 0.2, 0.5, 0.8, 0.95):
            truth = Truth(1, (), kind, base=base)
            for n in (5, 20, 50, 250):
                rng, hit = np.random.default_rng([seed, n]), 0
                for _ in range(experiments):
                    score = answers(truth, rng, n)
                    weight = bin_weights(np.zeros(n, dtype=np.int64))
                    low, high, _ = accuracy_interval(score, weight, np.arange(n), ALPHA)
                    hit += low is not None and high is not None and low - 1e-9 <= base <= high + 1e-9
                rate = hit / experiments
                low_bar, high_bar = (0.93, 0.97) if n >= 20 and 0.2 <= base <= 0.8 else (0.92, 1.0)
                error = 2.576 * math.sqrt(low_bar * (1 - low_bar) / experiments)
                fits = low_bar - error <= rate <= high_bar + error
                yield f"{kind} n={n} mean={base:g}", "coverage", rate, "ok" if fits else f"not {low_bar}..{high_bar}"


def half_losses(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """95% intervals of the half-loss budget where the total loss is proven."""
    budgets = np.array([1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    shapes = {
        "cliff": (0.0, 0.0, 0.0, 0.05, 0.1, 0.4, 0.8),
        "even": tuple(0.5 * (i + 1) / 7 for i in range(7)),
        "knee": (0.02, 0.05, 0.1, 0.2, 0.35, 0.55, 0.8),
    }
    for name, loss in shapes.items():
        exact = float(half_loss(0.6 * (1 - np.array([0.0, *loss])), budgets))
        for n in (100, 250):
            rng, hit, told = np.random.default_rng([seed, n]), 0, 0
            for _ in range(max(100, experiments // 4)):
                grid = simulate(Truth(n, loss, flips=0.1), rng)
                last = against_full(grid, "full", f"b{len(loss) - 1}", 0.1, -1, margin=MARGIN, alpha=None)
                if last.p_loss > ALPHA / 2:
                    continue
                score = np.stack(list(grid.score.values()), axis=1)
                per_bin = [
                    resample_means(
                        Columns(score[grid.bin_idx == b], np.arange(n // 5)), 1000, int(rng.integers(2**31)), b
                    )
                    for b in range(5)
                ]
                low, high = percentile_interval(half_loss(np.mean(per_bin, axis=0), budgets), ALPHA)
                told, hit = told + 1, hit + (low - 1e-9 <= exact <= high + 1e-9)
            rate = hit / max(1, told)
            fits = rate >= 0.9 - 2.576 * math.sqrt(0.09 / max(1, told))
            yield (
                f"{name} n={n} (half loss at {exact:.3f}, told {told})",
                "coverage",
                rate,
                "ok" if fits else "below 0.9",
            )


def second_look(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """False claims at any of three looks, examples added where the look before left the zone open; three budgets."""
    cases = [("binary", n, flips) for n in (25, 50) for flips in (0.1, 0.3)] + [("graded", 25, 0.1)]
    at_margin = MARGIN / Truth(1, ()).base
    for kind, n, flips in cases:
        where = f"{kind} n={n} at first, flips={flips:g}"
        none = _any_look(Truth(n, (0.0,) * 2, kind, flips=flips), experiments, seed)
        yield error(where, "false loss", _rate_any(none, lambda c: c.loss is not None), experiments)
        for uneven in (False, True):
            there = _any_look(Truth(n, (at_margin,) * 2, kind, flips=flips, uneven=uneven), experiments, seed)
            lies = f"{where}, all in one bin" if uneven else where
            yield error(lies, "false safe", _rate_any(there, lambda c: c.safe is not None), experiments)
            yield error(lies, "false broken", _rate_any(there, lambda c: c.broken is not None), experiments)
    unpaid = _any_look(Truth(50, (0.0,) * 2, flips=0.3), experiments, seed, paid=False)
    rate = _rate_any(unpaid, lambda c: c.loss is not None)
    yield "binary n=50 at first, flips=0.3, were looks free", "false loss", rate, ""


def _any_look(truth: Truth, experiments: int, seed: int, *, paid: bool = True) -> list[list[Claims]]:
    """The claims of up to three looks of each experiment, grown as `kvt prepare` grows a manifest."""
    rng = np.random.default_rng([seed, truth.n])
    return [list(_looks(truth, rng, paid=paid)) for _ in range(experiments)]


def _looks(truth: Truth, rng: np.random.Generator, *, paid: bool) -> Iterator[Claims]:
    per_bin, most = truth.n // truth.bins, 8
    whole = simulate(replace(truth, n=truth.n * most), rng)  # the source
    place = np.arange(len(whole.bin_idx)) % (per_bin * most)  # within its bin
    size = np.full(truth.bins, per_bin)
    for number in (1, 2, 3):
        taken = place < size[whole.bin_idx]
        grid = Grid({k: v[taken] for k, v in whole.score.items()}, whole.bin_idx[taken], whole.cluster[taken])
        names = [name for name in grid.score if name != "full"]
        budget = {name: 1 - (i + 1) / (len(names) + 1) for i, name in enumerate(names)}
        share = look_of(FOCUS, number).share if paid else 1.0
        found = claims([_tested(grid, name, budget[name], -1, None) for name in names], ALPHA / 2 * share)
        yield found
        left = [
            name
            for name in names
            if (found.safe is None or budget[name] < found.safe)
            and (found.broken is None or budget[name] > found.broken)
        ]
        if number == 3 or not left:
            return
        states = {}
        for b in range(truth.bins):
            seen = [_tested(grid, name, budget[name], b, ALPHA) for name in left]
            spread = together([spread_of(t.drop_low, t.drop_high, t.n) for t in seen])
            states[b] = BinState(int(size[b]), per_bin * most, spread)
        for b, more in allot(states, truth.n).items():
            size[b] += more


def _tested(grid: Grid, name: str, budget: float, bin_idx: int, alpha: float | None) -> BudgetTest:
    return against_full(grid, "full", name, budget, bin_idx, margin=MARGIN, alpha=alpha)


def _rate_any(found: Sequence[Sequence[Claims]], event: Callable[[Claims], bool]) -> float:
    return sum(any(map(event, looks)) for looks in found) / len(found)


TABLES = {
    f.__name__: f
    for f in (
        *(errors, clustered, second_look, power, coverage, half_losses),
        *calibrate_units.TABLES,
        *calibrate_sentences.TABLES,
        *calibrate_suites.TABLES,
        *calibrate_outcomes.TABLES,
        *calibrate_comparisons.TABLES,
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--sizes", default="15,25,50,80,250")
    parser.add_argument("--tables", default=",".join(TABLES))
    asked = parser.parse_args()
    bad = 0
    for name in asked.tables.split(","):
        start = time.perf_counter()
        print(f"\n{name}: {(TABLES[name].__doc__ or '').strip()}")
        for where, what, rate, verdict in TABLES[name](
            asked.experiments, asked.seed, [int(n) for n in asked.sizes.split(",")]
        ):
            bad += verdict not in ("ok", "")
            print(f"  {where:<58} {what:<15} {rate:7.4f}  {verdict}", flush=True)
        print(f"  ({time.perf_counter() - start:.0f} s)")
    print(f"\n{bad} cells outside their bar" if bad else "\nevery cell within its bar")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
