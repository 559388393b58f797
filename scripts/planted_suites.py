"""Suites with a planted truth through the whole program: facts in SQLite, score, analyze, the stored verdict.

    python scripts/planted_suites.py [--experiments 400] [--jobs 2]

calibrate_suites.py holds the tests to their level by drawing scores. Here the same truths are answers in a database,
and what is judged is what a user would read. Four tasks, two length bins of 40 contexts each, two answers to an
example, one answer in fifty drawn anew in every run. A claim that is false under its truth must not come in more than
2.5% of the experiments; that is judged by the one-sided 99.9% binomial bound. Exit code 1: one came too often.
"""

import argparse
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import comb
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analyzer.results.suite_results import read_suite
from analyzer.scoring.score import score
from analyzer.store.suite_tables import SuiteVerdict
from analyzer.summarise.analyze import analyze
from kvt_async.contract.load import load_settings
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from tests.analyzer.synthetic import make_db

LEVEL = 0.025
TASKS = ("one", "two", "three", "four")
BASE, GUARD, MARGIN = 0.9, 0.15, 0.05
BUDGETS = (1.0, 0.5)


@dataclass(frozen=True)
class Truth:
    """The loss of each task at 0.5, and which claims about that budget would be false."""

    name: str
    losses: tuple[float, ...]
    false: dict[str, Callable[[SuiteVerdict], bool]]
    true: dict[str, Callable[[SuiteVerdict], bool]]


def _is_safe(verdict: SuiteVerdict) -> bool:
    return verdict.suite_safe is not None and verdict.suite_safe <= 0.5


def _is_safe_everywhere(verdict: SuiteVerdict) -> bool:
    return verdict.safe_everywhere is not None and verdict.safe_everywhere <= 0.5


def _is_broken(verdict: SuiteVerdict) -> bool:
    return verdict.broken_somewhere is not None


def _mean_is_broken(verdict: SuiteVerdict) -> bool:
    return verdict.mean_broken_budget is not None


def _too_many_safe(verdict: SuiteVerdict, most: int) -> bool:
    return (verdict.n_safe_tasks or 0) > most


def _bound_is_below(verdict: SuiteVerdict, worst: float) -> bool:
    return verdict.worst_task_bound is not None and verdict.worst_task_bound < worst


TRUTHS = (
    Truth(
        "no task loses anything",
        (0, 0, 0, 0),
        {"broken somewhere": _is_broken, "mean broken": _mean_is_broken},
        {"suite safe": _is_safe},
    ),
    Truth(
        "one task loses the guard",
        (GUARD, 0, 0, 0),
        {
            "suite safe": _is_safe,
            "safe everywhere": _is_safe_everywhere,
            "bound below the worst": partial(_bound_is_below, worst=GUARD),
            "more than 3 safe": partial(_too_many_safe, most=3),
        },
        {},
    ),
    Truth(
        "every task loses the margin",
        (MARGIN,) * 4,
        {
            "suite safe": _is_safe,
            "broken somewhere": _is_broken,
            "mean broken": _mean_is_broken,
            "a task called safe": partial(_too_many_safe, most=0),
        },
        {},
    ),
    Truth(
        "one task loses half",
        (0.5, 0, 0, 0),
        {"suite safe": _is_safe, "bound below the worst": partial(_bound_is_below, worst=0.5)},
        {"broken somewhere": _is_broken},
    ),
)


def experiment(truth: Truth, nth: int) -> SuiteVerdict:
    """One suite of this truth, its answers drawn with seed `nth`, as the program judges it."""

    def chance(loss: float, series: str, budget: float, bin_idx: int) -> float:
        return BASE - (loss if budget < 1 else 0.0)

    tasks = [{"task": name, "p_correct": partial(chance, loss)} for name, loss in zip(TASKS, truth.losses, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        db = make_db(
            Path(folder) / "kv_transition.sqlite", tasks=tasks, n_bins=2, n_per_bin=40, budgets=BUDGETS, flips=0.02,
            samples=2, seed=1_000 * nth, control_repeats=0,
        )  # fmt: skip
        settings = load_settings(
            None,
            [
                "experiment.exp_group_id=synthetic",
                "decoding.samples=2",
                "analysis.resamples=100",
                "analysis.charts=false",
            ],
            environ={},
        )
        with closing(connect_for_reading(db, write_derived=True)) as conn:
            return _judged(conn, settings)


def _judged(conn: sqlite3.Connection, settings: Settings) -> SuiteVerdict:
    score(conn, "synthetic")
    analyze(conn, settings)
    (verdict,) = read_suite(conn, "synthetic").verdicts
    return verdict


def most_allowed(n: int, level: float = LEVEL, tail: float = 0.001) -> int:
    """The largest count that a claim of rate `level` still has with a chance of more than `tail`, of n experiments."""
    chance, k = 1.0, 0
    while chance > tail:
        chance -= comb(n, k) * level**k * (1 - level) ** (n - k)
        k += 1
    return k - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    n, wrong = args.experiments, 0
    allowed = most_allowed(n)
    print(f"{n} experiments a truth; a false claim may come {allowed} times ({LEVEL:.1%}, one-sided 99.9% bound)")
    with ProcessPoolExecutor(args.jobs) as pool:
        for truth in TRUTHS:
            verdicts = list(pool.map(partial(experiment, truth), range(n), chunksize=8))
            print(f"\n{truth.name} at 0.5 ({', '.join(f'{loss:g}' for loss in truth.losses)})")
            for claim, holds in truth.false.items():
                count = sum(map(holds, verdicts))
                wrong += count > allowed
                print(f"  false: {claim:<24} {count:>4}  {count / n:6.2%}{'  TOO OFTEN' if count > allowed else ''}")
            for claim, holds in truth.true.items():
                count = sum(map(holds, verdicts))
                print(f"  true:  {claim:<24} {count:>4}  {count / n:6.1%}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
