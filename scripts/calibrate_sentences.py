"""Calibration of what is said beside a verdict: the ratio decides, within noise, gains, half of the loss, forecasts.

Tables of scripts/calibrate.py; each cell here once was outside of its bar.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from simulated import ALPHA, MARGIN, Flips, Floats, Ints, Row, covered, error

from analyzer.read.runs import Run
from analyzer.stats.bootstrap import Columns, resample_means
from analyzer.stats.chances import Chances
from analyzer.stats.half_loss import half_loss
from analyzer.stats.holm import holm
from analyzer.stats.margin import Margin
from analyzer.stats.noise import noise
from analyzer.stats.sample_layout import Layout
from analyzer.stats.transition import Grid, against_full, claims, pairs_needed
from analyzer.stats.transition import forecast as forecast_of
from analyzer.summarise.analyze import resample
from analyzer.summarise.length_dependence import constant_at_break
from analyzer.summarise.series_bin import SeriesBin
from analyzer.summarise.series_summary import half_loss_of
from kvt_async.contract.vocabulary import EvidenceStatus, Role

RESAMPLES = 400
LEVEL = Run("r", "d", "s", "s", 0.5, "fraction", "question_aware", "body", False, 0, 0)
MANY = (0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
LENGTHS = (500, 1000, 2000, 4000, 8000)


@dataclass(frozen=True)
class Cliff:
    """A truth: 0.9 of the score is lost around `at`, a ratio or a number of kept tokens, in every length bin alike.

    power: 0 a ratio decides, 1 a number of tokens, 0.5 neither (tokens by the root of the length).
    """

    at: float
    power: float
    n: Sequence[int]
    lengths: Sequence[int] = LENGTHS
    budgets: Sequence[float] = MANY
    base: Sequence[float] = (0.8,) * 5
    flips: float = 0.05

    def lost(self, budget: float, length: int) -> float:
        return float(0.9 / (1 + (budget * length**self.power / self.at) ** (1 / 0.3)))


def said(truth: Cliff, rng: np.random.Generator) -> str:
    """tokens | fraction | unclear of one experiment; unclear too where it isn't asked."""
    bins: list[SeriesBin] = []
    for length, n, base in zip(truth.lengths, truth.n, truth.base, strict=False):
        run, luck = Flips(rng, np.full(n, base), truth.flips), rng.random(n)
        score = {"full": run.draw()}
        score |= {f"{b:g}": np.where(luck < truth.lost(b, length), 0.0, run.draw()) for b in truth.budgets}
        grid = Grid(score, np.zeros(n, dtype=int), np.arange(n))
        tests = [against_full(grid, "full", f"{b:g}", b, -1, margin=MARGIN, alpha=None) for b in truth.budgets]
        table = np.stack(list(score.values()), axis=1)
        replicates = resample_means(Columns(table, np.arange(n)), RESAMPLES, int(rng.integers(2**31)), 0)
        means = table.mean(axis=0)
        bins.append(
            SeriesBin(
                level=LEVEL,
                bin_idx=len(bins),
                role=Role.EXPLORATORY,
                tests=tests,
                claims=claims(tests, ALPHA / 2),
                acc_full=float(means[0]),
                acc=means[1:].tolist(),
                kept=[b * length for b in truth.budgets],
                kept_full=float(length),
                replicates=replicates,
                noise=None,
                evidence=EvidenceStatus.VERIFIED,
            )
        )
    constant = constant_at_break(bins, Margin(MARGIN))
    return str(constant["constant"]) if constant else "unclear"


def ratio(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """The ratio named where tokens decide, or tokens where the ratio does; and how often the right one is named."""
    n = max(10, experiments // 10)
    two: dict[str, Any] = {"n": (75, 400), "base": (0.8, 0.8)}
    cells = {
        "ratio .25, 8 budgets, n 50": Cliff(0.25, 0, (50,) * 5),
        "ratio .25, budgets .75 .5 .25, n 100": Cliff(0.25, 0, (100,) * 5, budgets=(0.75, 0.5, 0.25)),
        "ratio .25, bases .9 to .3, n 50": Cliff(0.25, 0, (50,) * 5, base=(0.9, 0.75, 0.6, 0.45, 0.3)),
        "ratio .25, two bins 1.0k 1.1k (75, 400)": Cliff(0.25, 0, lengths=(1000, 1100), **two),
        "ratio .25, two bins 1k 2k (75, 400)": Cliff(0.25, 0, lengths=(1000, 2000), **two),
        "400 tokens, 8 budgets, n 50": Cliff(400, 1, (50,) * 5),
        "400 tokens, 8 budgets, n 150": Cliff(400, 1, (150,) * 5),
        "50 tokens, 8 budgets, n 150": Cliff(50, 1, (150,) * 5),
        "400 tokens, budgets .5 .1, n 50": Cliff(400, 1, (50,) * 5, budgets=(0.5, 0.1), flips=0.1),
        "400 tokens, budgets .9 .5 .2, n 150": Cliff(400, 1, (150,) * 5, budgets=(0.9, 0.5, 0.2)),
        "800 tokens, budgets .75 .5 .25, n 100": Cliff(800, 1, (100,) * 5, budgets=(0.75, 0.5, 0.25)),
        "100 tokens, budgets .5 .25 .1, n 100": Cliff(100, 1, (100,) * 5, budgets=(0.5, 0.25, 0.1)),
        "20,000 tokens (all break at once), n 50": Cliff(20_000, 1, (50,) * 5),
        "neither, 8 budgets, n 50": Cliff(12, 0.5, (50,) * 5),
        "neither, 8 budgets, n 150": Cliff(12, 0.5, (150,) * 5),
    }
    for name, truth in cells.items():
        rng = np.random.default_rng([seed, *truth.n])
        found = [said(truth, rng) for _ in range(n)]
        for what in ("tokens", "fraction"):
            share = found.count(what) / n
            right = {0.0: "fraction", 1.0: "tokens"}.get(truth.power)
            yield (name, what, share, "") if right == what else error(name, what, share, n)


def within_noise(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """Noise alone called within noise (where the A/A control saw any), in 95% at least."""
    cells = [((size,) * 5, 1) for size in (20, 50, 100)] + [
        ((2, 5, 20, 80, 200), 1), ((10, 10, 10, 10, 200), 1), ((20,) * 5, 5), ((50,) * 5, 5),
    ]  # fmt: skip
    for size, questions in cells:
        bin_idx = np.repeat(np.arange(len(size)), size)
        cluster = np.arange(len(bin_idx)) // questions
        for flips in (0.05, 0.3):
            rng, told, hits = np.random.default_rng([seed, *size]), 0, 0
            for _ in range(experiments):
                run = _together(rng, cluster, flips)
                grid = Grid({name: run() for name in ("full", "again", "b")}, bin_idx, cluster)
                again, here = (
                    against_full(grid, "full", x, 1.0, -1, margin=MARGIN, alpha=None) for x in ("again", "b")
                )
                if (seen := noise([again])) and seen.flips:
                    told, hits = told + 1, hits + seen.explains(here, ALPHA)
            where = f"bins {'/'.join(map(str, size))}, {questions} a context, flips={flips:g}"
            yield covered(where, hits / max(1, told), told)


def _together(rng: np.random.Generator, cluster: Ints, flips: float) -> Callable[[], Floats]:
    """Draws of 0/1 answers of which a share is drawn anew, whole contexts together."""
    contexts = int(cluster.max()) + 1
    run = Flips(rng, np.full(contexts, 0.8), flips)
    return lambda: run.draw()[cluster]


def gains(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """`flag_gains` over budgets and bins, and `not_better_than_full` over budgets, where nothing but noise differs."""
    for n, budgets, flips in ((50, 5, 0.1), (50, 9, 0.3), (100, 9, 0.3)):
        rng, flagged, better = np.random.default_rng([seed, n, budgets]), 0, 0
        total = max(20, experiments // 8)
        for _ in range(total):
            run, bin_idx = Flips(rng, np.full(5 * n, 0.8), flips), np.repeat(np.arange(5), n)
            names = [f"b{i}" for i in range(budgets)]
            grid = Grid({name: run.draw() for name in ("full", *names)}, bin_idx, np.arange(5 * n))
            p = {
                b: [against_full(grid, "full", name, 0.5, b, margin=MARGIN, alpha=None).p_gain for name in names]
                for b in range(-1, 5)
            }
            better += min(holm(p[-1])) <= ALPHA / 2
            flagged += min(holm([one for row in p.values() for one in row])) <= ALPHA / 2
        where = f"n/bin {n}, {budgets} budgets, flips={flips:g}"
        yield error(where, "flag_gains", flagged / total, total)
        yield error(where, "not_better", better / total, total)


def half_losses_unequal(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """95% intervals of the half-loss budget with bins of 10 contexts and more: where a loss is proven."""
    budgets = np.array([1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    shapes = {
        "cliff": (0.0, 0.0, 0.0, 0.05, 0.1, 0.4, 0.8),
        "even": tuple(0.5 * (i + 1) / 7 for i in range(7)),
        "early": (0.3, 0.45, 0.5, 0.5, 0.5, 0.5, 0.5),
    }
    for size in ((10,) * 5, (10, 10, 20, 80, 200), (20,) * 5):
        bin_idx = np.repeat(np.arange(5), size)
        for name, loss in shapes.items():
            exact = float(half_loss(0.6 * (1 - np.array([0.0, *loss])), budgets))
            rng, told, hit = np.random.default_rng([seed, *size]), 0, 0
            for _ in range(max(20, experiments // 8)):
                run, luck = Flips(rng, np.full(len(bin_idx), 0.6), 0.1), rng.random(len(bin_idx))
                score = {"full": run.draw()}
                score |= {f"{b:g}": np.where(luck < x, 0.0, run.draw()) for b, x in zip(budgets[1:], loss, strict=True)}
                grid = Grid(score, bin_idx, np.arange(len(bin_idx)))
                tests = [against_full(grid, "full", f"{b:g}", b, -1, margin=MARGIN, alpha=None) for b in budgets[1:]]
                replicates = resample(grid, range(5), 1000, int(rng.integers(2**31)))[-1]
                means = [float(np.mean([s[bin_idx == b].mean() for b in range(5)])) for s in score.values()]
                summary = SeriesBin(
                    level=LEVEL,
                    bin_idx=-1,
                    role=Role.CONFIRMATORY,
                    tests=tests,
                    claims=claims(tests, ALPHA / 2),
                    acc_full=means[0],
                    acc=means[1:],
                    kept=[None] * 7,
                    kept_full=None,
                    replicates=replicates,
                    noise=None,
                    evidence=EvidenceStatus.VERIFIED,
                    contexts=min(size),
                )
                half = half_loss_of(summary, ALPHA)
                if half.low is not None and half.high is not None:
                    told += 1
                    hit += half.low - 1e-9 <= exact <= half.high + 1e-9
            where = f"bins {'/'.join(map(str, size))}, {name} (half loss at {exact:.3f}, told {told})"
            yield covered(where, hit / max(1, told), told, 0.9)


def forecast(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """Chance that as many pairs as were said to be needed prove the claim, were the drop seen the true one."""
    drawn = max(40, experiments // 4)
    for parts in ((1,), (1, 1, 1, 1, 1), (10, 100, 100, 100, 100)):
        for flips, drop in ((0.0, 0.01), (0.02, 0.0), (0.05, 0.0), (0.1, 0.0), (0.0, 0.02), (0.05, 0.3)):
            many = [part * (40_000 // sum(parts)) for part in parts]
            seen = against_full(_pairs(many, flips, drop, None), "full", "b", 0.5, -1, margin=MARGIN, alpha=None)
            need = forecast_of(seen, ALPHA / 2, margin=MARGIN)
            rng, hits = np.random.default_rng([seed, need]), 0
            size = [round(need * part / sum(parts)) for part in parts]
            for _ in range(drawn):
                t = against_full(_pairs(size, flips, drop, rng), "full", "b", 0.5, -1, margin=MARGIN, alpha=None)
                hits += (t.p_safe if drop < MARGIN else t.p_broken) <= ALPHA / 2
            where = f"bins {'/'.join(map(str, parts))}, flips={flips:g}, drop {drop:g}: {need} pairs"
            yield covered(where, hits / drawn, drawn, 0.7)


def _pairs(size: Sequence[int], flips: float, drop: float, rng: np.random.Generator | None) -> Grid:
    """Pairs with these shares of worse and better, drawn, or in each bin exactly (rng None)."""
    noise = flips * (1 - drop) / 2
    bin_idx = np.repeat(np.arange(len(size)), size)
    even = np.concatenate([(np.arange(n) + 0.5) / n for n in size])
    luck = rng.random(len(bin_idx)) if rng else even
    difference = np.where(luck < drop + noise, 1.0, np.where(luck < drop + 2 * noise, -1.0, 0.0))
    return Grid({"full": difference, "b": np.zeros(len(bin_idx))}, bin_idx, np.arange(len(bin_idx)))


def pilots(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """After a pilot of a budget that loses nothing: the chance that its forecast is enough, and forecasts of a loss."""
    total, drawn = max(20, experiments // 20), 100
    for n in (25, 50, 100):
        for flips in (0.05, 0.1):
            rng, power, told, wrong = np.random.default_rng([seed, n]), 0.0, 0, 0
            for _ in range(total):
                seen = against_full(_pairs([n], flips, 0.0, rng), "full", "b", 0.5, -1, margin=MARGIN, alpha=None)
                done = claims([seen], ALPHA / 2)
                need = pairs_needed([seen], done, margin=MARGIN)
                if need is None or done.safe is not None:
                    continue
                wrong += seen.drop > MARGIN
                if seen.drop < MARGIN:
                    told += 1
                    chances = Chances(MARGIN, ALPHA / 2, int(rng.integers(2**31)), drawn)
                    power += chances.safe(Layout.even(need), flips)
            yield f"pilot of {n}, flips={flips:g}, told {told}", "chance", power / max(1, told), ""
            yield error(f"pilot of {n}, flips={flips:g}", "wrong claim", wrong / total, total)


def planned(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """`kvt plan` says "in 4 of 5 experiments": how often one budget, and all of three, are then proven safe."""
    drawn = max(40, experiments // 8)
    chances = Chances(MARGIN, ALPHA / 2, seed, 400)
    for questions in (1, 5):
        cluster = np.arange(500 * questions) // questions
        layout = Layout.of(cluster, np.arange(len(cluster)) * 5 // len(cluster))
        for share in (0.02, 0.05, 0.1):  # of answers that differ between two runs
            flips = 1 - (1 - 2 * share) ** 0.5  # drawn anew at even odds, half of them show
            for budgets in (1, 3):
                n = chances.needed(layout, share, budgets) or 0
                rng, hits, contexts = np.random.default_rng([seed, n]), 0, n // questions
                for _ in range(drawn):
                    run, of = Flips(rng, np.full(contexts, 0.5), flips), np.arange(n) // questions
                    names = ["full", *(f"b{i}" for i in range(budgets))]
                    grid = Grid({name: run.draw()[of] for name in names}, of * 5 // contexts, of)
                    tests = [against_full(grid, "full", b, 0.5, -1, margin=MARGIN, alpha=None) for b in names[1:]]
                    hits += all(test.p_safe <= ALPHA / 2 for test in tests)
                where = f"{questions} a context, {share:.0%} flip, {budgets} budgets: n={n}"
                yield covered(where, hits / drawn, drawn, 0.75)


TABLES = (ratio, within_noise, gains, half_losses_unequal, forecast, pilots, planned)
