"""Calibration of the verdict over several tasks, of relative margins, and of several answers an example.

Tables of scripts/calibrate.py, and a quick run of them alone (two minutes; more with --experiments):

    python scripts/calibrate_suites.py [--experiments 200] [--tables suites,suites_power,relative,...]

A suite takes as long as its tasks, so a cell of the table `suites` has half of the experiments of the others.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from simulated import ALPHA, MARGIN, Row, covered, error
from simulated_suites import GUARD, SuiteTruth, Wrongs, all_lose, answers_of, one_loses, simulate_suite

from analyzer.stats.loss_bound import lost_share
from analyzer.stats.margin import Margin
from analyzer.stats.repeated_answers import Aggregate
from analyzer.stats.seed_effect import seed_effect
from analyzer.stats.suite import SuiteRule
from analyzer.stats.transition import Grid, against_full
from analyzer.verbs.power import Flips
from analyzer.verbs.suite_plan import suite_plan
from kvt_async.contract.load import load_settings
from kvt_async.contract.planned_task import PlannedTask
from kvt_async.contract.vocabulary import SeedVerdict

LEVEL, RELATIVE = ALPHA / 2, Margin(0.1, "relative")
UNEQUAL_5, UNEQUAL_13 = (20, 40, 80, 120, 200), (20, 30, 40, 40, 50, 60, 80, 80, 100, 120, 150, 200, 200)
LENGTHS = (2, 5, 20, 80, 200)  # bins of very unequal size


def suite_cells() -> dict[str, SuiteTruth]:
    """Suites at the edge of every claim: one task, some or all exactly at the margin or at the guard."""
    cells: dict[str, SuiteTruth] = {}
    sizes = {"2 x 40": (40, 40), "5 of 20-200": UNEQUAL_5, "13 x 40": (40,) * 13, "20 x 80": (80,) * 20}
    for name, n in sizes.items():
        for flips in (0.0, 0.05, 0.3):
            where = f"{name}, flips {flips:g}"
            cells |= {
                f"{where}, one loses the guard": one_loses(n, GUARD, flips=flips),
                f"{where}, one loses the margin": one_loses(n, MARGIN, flips=flips),
                f"{where}, all lose the margin": all_lose(n, MARGIN, flips=flips),
            }
    of_13 = (*(MARGIN,) * 6, *(0.0,) * 7)
    floors = (*(0.01,) * 5, *(0.8,) * 8)
    dead = tuple(0.0 if base < 0.1 else MARGIN * 13 / 8 for base in floors)
    return cells | {
        "13 of 20-200, one loses the guard": one_loses(UNEQUAL_13, GUARD, flips=0.02),
        "13 x 40, six lose the margin": SuiteTruth((40,) * 13, (of_13, of_13), flips=0.02),
        "13 x 80, six lose the margin": SuiteTruth((80,) * 13, (of_13, of_13), flips=0.02),
        "13 x 40, one loses 0.65, the mean the margin": one_loses((40,) * 13, 0.65),
        "13 x 150, one loses the margin": one_loses((150,) * 13, MARGIN, flips=0.02),
        "5 x 80, contexts shared, all lose the margin": all_lose((80,) * 5, MARGIN, shared=True),
        "13 x 40, contexts shared, all lose the margin": all_lose((40,) * 13, MARGIN, shared=True, flips=0.05),
        "13 x 100, contexts shared, all lose the margin": all_lose((100,) * 13, MARGIN, shared=True),
        "13 x 40, contexts shared, one loses the guard": one_loses((40,) * 13, GUARD, shared=True),
        "13 x 40, contexts shared, one loses the margin": one_loses((40,) * 13, MARGIN, shared=True),
        "5 x 200 in 40 contexts each, all lose the margin": all_lose((200,) * 5, MARGIN, questions=5, flips=0.05),
        "5 x 307, bins 2-200, in the last one": all_lose((307,) * 5, MARGIN, bins=LENGTHS, uneven=True),
        "5 x 307, bins 200-2, in the last one": all_lose((307,) * 5, MARGIN, bins=LENGTHS[::-1], uneven=True),
        "5 x 307, bins 2-200, one loses the guard": one_loses((307,) * 5, GUARD, bins=LENGTHS, flips=0.02),
        "13 x 40, ceilings, one loses the guard": one_loses((40,) * 13, GUARD, base=1.0),
        "13 x 80, five at .01, the mean loses the margin": SuiteTruth((80,) * 13, (dead, dead), base=floors),
        "5 x 40 of 4 answers, one loses the guard": one_loses((40,) * 5, GUARD, k=4, flips=0.3),
        "5 x 40 of 4 answers, all lose the margin": all_lose((40,) * 5, MARGIN, k=4, flips=0.3),
        "13 x 40, nothing lost": all_lose((40,) * 13, 0.0, flips=0.3),
    }


def suites(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """False claims over several tasks, at either of two budgets, and the interval of their mean."""
    for where, truth in suite_cells().items():
        rng, n = np.random.default_rng([seed, len(where), sum(truth.sizes)]), max(20, experiments // 2)
        wrong: Counter[str] = Counter()
        held = 0
        for found in truth.many(rng, n):
            wrong.update(Wrongs(truth).of(found))
            row = found.budgets[0]
            held += row.test.drop_low - 1e-9 <= truth.mean(0) <= row.test.drop_high + 1e-9
        for what, count in wrong.items():
            yield error(where, what, count / n, n)
        yield covered(where, held / n, n)


def suites_power(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """What 13 tasks prove where nothing is lost: rates; medians of the worst task's bound and of the safe tasks."""
    n = max(20, experiments // 4)
    for size in (40, 60, 80, 100, 150, 250):
        for flips in (0.0, 0.02, 0.05, 0.1):
            rng, where = np.random.default_rng([seed, size]), f"13 x {size}, flips {flips:g}"
            truth = SuiteTruth((size,) * 13, ((0.0,) * 13,), flips=_anew(flips))
            found = list(truth.many(rng, n))
            yield where, "suite safe", float(np.mean([one.suite_safe is not None for one in found])), ""
            yield where, "mean safe", float(np.mean([one.mean_safe is not None for one in found])), ""
            yield where, "safe everywhere", float(np.mean([one.safe_everywhere is not None for one in found])), ""
            yield where, "bound (median)", float(np.median([one.budgets[0].worst_task_bound for one in found])), ""
            yield where, "safe tasks", float(np.median([one.budgets[0].n_safe_tasks for one in found])), ""
    for size, losses in ((40, (0.3, 0.4, 0.5)), (80, (0.2, 0.25, 0.3)), (150, (0.15, 0.2, 0.25))):
        for loss in losses:
            rng, truth = np.random.default_rng([seed, size]), one_loses((size,) * 13, loss, flips=_anew(0.02))
            rate = float(np.mean(["t0" in one.broken_tasks for one in truth.many(rng, n)]))
            yield f"13 x {size}, flips 0.02, one loses {loss:g}", "named as broken", rate, ""


def _anew(flips: float, base: float = 0.8) -> float:
    """The share of answers that each run draws anew, so that a share `flips` of them differs between two runs."""
    return 1 - float(np.sqrt(1 - flips / (2 * base * (1 - base))))


def relative(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """A relative margin of 0.1 where exactly that share is lost: false claims, intervals of the share; and power."""
    for n in (40, 100, 250):
        for base in (0.05, 0.3, 0.6, 0.95):
            for flips in (0.0, 0.1, 0.3):
                truth = SuiteTruth((n,), ((0.1 * base,),), base=base, flips=flips, bins=(1, 1, 1, 1, 1))
                yield from relative_cell(truth, f"n={n}, accuracy {base:g}, flips {flips:g}", experiments, seed)
    floors = (*(0.02,) * 5, *(0.8,) * 8)
    truth = SuiteTruth((80,) * 13, (tuple(0.1 * base for base in floors),), base=floors, flips=0.05)
    rule, n = SuiteRule(RELATIVE, 0.3, ALPHA), max(20, experiments // 4)
    found = list(truth.many(np.random.default_rng(seed), n, rule))
    where = "13 x 80, five at .02, a tenth lost"
    yield error(where, "mean safe", float(np.mean([one.mean_safe is not None for one in found])), n)
    yield error(where, "mean broken", float(np.mean([one.mean_broken is not None for one in found])), n)
    for n in (100, 250):
        for base in (0.05, 0.6, 1.0):
            for flips in (0.0, 0.05):
                truth = SuiteTruth((n,), ((0.0,),), base=base, flips=flips)
                rng = np.random.default_rng([seed, n])
                grids = (simulate_suite(truth, rng)[0].grid for _ in range(experiments))
                tests = [against_full(grid, "full", "b0", 0.5, -1, margin=RELATIVE, alpha=None) for grid in grids]
                rate = float(np.mean([test.p_safe <= LEVEL for test in tests]))
                yield f"n={n}, accuracy {base:g}, flips {flips:g}, nothing lost", "proven safe", rate, ""


def samples(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """Several answers an example: false claims at a loss of the margin and at none; few contexts of many answers."""
    shapes = {f"{n} examples": (n, 1) for n in (40, 150)} | {
        f"{contexts} contexts of {questions}": (contexts * questions, questions)
        for contexts, questions in ((10, 30), (20, 10), (75, 5))
    }
    for name, (n, questions) in shapes.items():
        for k in (1, 2, 4, 8):
            for flips in (0.0, 0.1, 0.3):
                for own in (False, True) if k > 1 and questions == 1 else (False,):
                    where = f"{name}, {k} answers, flips {flips:g}" + (", each lost by itself" if own else "")
                    yield from sampled(
                        SuiteTruth((n,), ((MARGIN,), (0.0,)), flips=flips, questions=questions, k=k, own=own),
                        where,
                        max(50, experiments // (2 if questions == 1 else 4)),
                        seed,
                    )
    yield from aggregates(experiments, seed)
    for n, ks in ((80, (1, 4, 8)), (150, (1, 4, 8))):
        for k in ks:
            rng, hits = np.random.default_rng([seed, n]), 0
            for _ in range(experiments):
                chance = rng.beta(0.8, 0.4, n)[:, None]
                full, here = ((rng.random((n, k)) < chance).mean(axis=1) for _ in range(2))
                grid = Grid({"full": full, "b0": here}, np.zeros(n, dtype=int), np.arange(n))
                hits += against_full(grid, "full", "b0", 0.5, -1, margin=MARGIN, alpha=None).p_safe <= LEVEL
            yield f"{n} examples, {k} answers, chances Beta(.8, .4)", "proven safe", hits / experiments, ""


def relative_cell(truth: SuiteTruth, where: str, experiments: int, seed: int) -> Iterator[Row]:
    """One task that loses a tenth of what full cache scores, judged by a relative margin of 0.1."""
    rng = np.random.default_rng([seed, truth.sizes[0]])
    safe = broken = held = told = 0
    for i in range(experiments):
        grid = simulate_suite(truth, rng)[0].grid
        test = against_full(grid, "full", "b0", 0.5, -1, margin=RELATIVE, alpha=None)
        safe, broken = safe + (test.p_safe <= LEVEL), broken + (test.p_broken <= LEVEL)
        if i % 4 == 0 and (share := lost_share(grid, "full", "b0", -1, ALPHA)) is not None:
            told, held = told + 1, held + (share.low - 1e-9 <= RELATIVE.size <= share.high + 1e-9)
    yield error(where, "false safe", safe / experiments, experiments)
    yield error(where, "false broken", broken / experiments, experiments)
    yield covered(where, held / max(1, told), told)


def sampled(truth: SuiteTruth, where: str, experiments: int, seed: int) -> Iterator[Row]:
    rng = np.random.default_rng([seed, truth.sizes[0], truth.k])
    safe = broken = loss = held = 0
    for _ in range(experiments):
        grid = simulate_suite(truth, rng)[0].grid
        at_margin = against_full(grid, "full", "b0", 0.5, -1, margin=MARGIN, alpha=ALPHA)
        none = against_full(grid, "full", "b1", 0.5, -1, margin=MARGIN, alpha=None)
        safe, broken = safe + (at_margin.p_safe <= LEVEL), broken + (at_margin.p_broken <= LEVEL)
        loss += none.p_loss <= LEVEL
        held += at_margin.drop_low - 1e-9 <= MARGIN <= at_margin.drop_high + 1e-9
    for what, count in (("false safe", safe), ("false broken", broken), ("false loss", loss)):
        yield error(where, what, count / experiments, experiments)
    yield covered(where, held / experiments, experiments)


def aggregates(experiments: int, seed: int) -> Iterator[Row]:
    """pass@K and the majority of 8 answers, where their mean over examples loses exactly the margin."""
    for text in ("pass@4", "majority@5"):
        aggregate = Aggregate.of(text)
        for n in (40, 150):
            for flips in (0.1, 0.3):
                truth = SuiteTruth((n,), ((0.0,),), base=0.6, flips=flips, k=8)
                many = SuiteTruth((200_000,), ((0.0,),), base=0.6, flips=flips, k=8)
                rng = np.random.default_rng([seed, n, len(text)])
                whole = float(_one(aggregate, answers_of(many, 0, rng.random((2, 200_000)), rng)["full"], rng).mean())
                safe = broken = 0
                for _ in range(experiments):
                    score = answers_of(truth, 0, rng.random((2, n)), rng)
                    full, here = (_one(aggregate, score[run], rng) for run in ("full", "b0"))
                    here = np.where(rng.random(n) < MARGIN / whole, 0.0, here)
                    grid = Grid({"full": full, "b0": here}, np.zeros(n, dtype=int), np.arange(n))
                    test = against_full(grid, "full", "b0", 0.5, -1, margin=MARGIN, alpha=None)
                    safe, broken = safe + (test.p_safe <= LEVEL), broken + (test.p_broken <= LEVEL)
                where = f"{n} examples, {text} of 8, flips {flips:g}"
                yield error(where, "false safe", safe / experiments, experiments)
                yield error(where, "false broken", broken / experiments, experiments)


def _one(aggregate: Aggregate, score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One score an example; a right answer is one answer, wrong ones are three."""
    answer = np.where(score > 0, 0, rng.integers(1, 4, score.shape))
    return aggregate.scores(score, answer)


def seeds(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """A seed that takes away exactly a fifth of the differences: kept or ignored, each false; and what is told else."""
    for n in (25, 100, 300):
        for k in (1, 4):
            for differ in (0.1, 0.5, 0.95):
                for removed in (0.0, 0.2, 0.6):
                    rng, said = np.random.default_rng([seed, n, k]), Counter[str]()
                    for _ in range(experiments):
                        chance = rng.beta(8 * differ, 8 * (1 - differ), n)[:, None]
                        other = (rng.random((n, k)) < chance).mean(axis=1)
                        same = (rng.random((n, k)) < chance * (1 - removed)).mean(axis=1)
                        effect = seed_effect(same, other, np.arange(n), np.zeros(n, dtype=int), alpha=ALPHA)
                        said[effect.verdict] += 1
                    where = f"n={n}, {k} answers, {differ:.0%} differ, seeds take {removed:.0%}"
                    for verdict, right in ((SeedVerdict.KEPT, removed > 0.2), (SeedVerdict.IGNORED, removed < 0.2)):
                        rate = said[verdict] / experiments
                        yield (where, verdict, rate, "") if right else error(where, verdict, rate, experiments)


def suites_planned(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """What `kvt plan` and `n_needed` say of 13 tasks that lose nothing, and what is found: the chance told, the chance
    found; and the chance at the sizes that a first run of 40 a task says are needed (80%)."""
    settings = load_settings(None, ["binning.n_bins=1", "kv.budgets=[1.0,0.5]"], environ={})
    n = max(20, experiments // 4)
    for size, flips in ((40, 0.02), (60, 0.02), (80, 0.05), (100, 0.05), (100, 0.1)):
        one = settings.model_copy(update={"binning": settings.binning.model_copy(update={"n_per_bin": size})})
        told = suite_plan(settings, [PlannedTask(f"t{t}", one) for t in range(13)], Flips(flips)).chance_suite_safe
        rate = _suite_safe(size, flips, n, np.random.default_rng([seed, size]))
        where = f"13 x {size}, flips {flips:g}: told {told:.2f}"
        yield (
            where,
            "suite safe",
            rate,
            "ok" if rate >= told - 0.05 - 2.6 * (0.25 / n) ** 0.5 else "below what was told",
        )
    for flips in (0.02, 0.05):
        rng, reached, told_by = np.random.default_rng([seed, int(100 * flips)]), 0.0, 0
        pilots = SuiteTruth((40,) * 13, ((0.0,) * 13,), flips=_anew(flips)).many(rng, max(5, experiments // 50))
        for needs in [one.needs for one in pilots if one.n_needed is not None]:
            size = round(float(np.mean([need.n_needed or 0 for need in needs])))
            told_by, reached = told_by + 1, reached + _suite_safe(size, flips, 20, rng)
        yield f"first run of 13 x 40, flips {flips:g}, told {told_by}", "suite safe", reached / max(1, told_by), ""


def _suite_safe(size: int, flips: float, experiments: int, rng: np.random.Generator) -> float:
    truth = SuiteTruth((size,) * 13, ((0.0,) * 13,), flips=_anew(flips))
    return float(np.mean([one.suite_safe is not None for one in truth.many(rng, experiments)]))


TABLES = (suites, suites_power, relative, samples, seeds, suites_planned)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--tables", default=",".join(table.__name__ for table in TABLES))
    asked, bad = parser.parse_args(), 0
    by_name = {table.__name__: table for table in TABLES}
    for name in asked.tables.split(","):
        print(f"\n{name}: {by_name[name].__doc__}")
        for where, what, rate, verdict in by_name[name](asked.experiments, asked.seed, []):
            bad += verdict not in ("ok", "")
            print(f"  {where:<62} {what:<16} {rate:7.4f}  {verdict}", flush=True)
    print(f"\n{bad} cells outside their bar" if bad else "\nevery cell within its bar")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
