"""Every number of a report as rows with plain values: what `kvt results` writes and the Python API makes frames of.

A level's row holds what it did in a bin (bin_idx -1: all lengths) and its paired loss there; a verdict's row what the
tests of a series allow to be said. Values are the stored ones: nothing is computed anew. A field is the column of its
name in the database; None: not known, or nothing of the kind in this row.
"""

from collections.abc import Iterator
from typing import Any

from analyzer.read.runs import Run
from analyzer.results.results import ALL, Results
from analyzer.results.suite_results import SuiteResults
from analyzer.store.suite_tables import SuiteStat, SuiteVerdict
from analyzer.store.tables import BinStat, Comparison, Drop, OutcomeChange, Verdict, columns
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.vocabulary import FULL

Row = dict[str, Any]

MEAN = "mean over tasks"
ALL_TASKS = "all tasks"
WHOLE = "all lengths"

KEYS = ("task", "model", "series", "kv_budget", "kv_unit", "repeat_idx", "bin_idx", "bin")
_JSON = ("label_counts_json", "flag_counts_json", "drop_json", "zone_json", "tasks_json", "method")
_OF_STAT = tuple(name for name in columns(BinStat) if name not in ("run_id", "dataset_id", "bin_idx", *_JSON))
_OF_DROP = tuple(
    name
    for name in columns(Drop)
    if name not in (*KEYS, "run_id", "n", "n_clusters", "acc_mean", "acc_ci_low", "acc_ci_high", *_JSON)
)
_OF_VERDICT = tuple(name for name in columns(Verdict) if name not in (*KEYS, "kv_policy", "kv_mode", *_JSON))
_OF_SUITE = tuple(name for name in columns(SuiteVerdict) if name not in (*KEYS, *_OF_VERDICT, *_JSON))

LEVEL_COLUMNS = (*KEYS, *_OF_STAT, "acc_of_full", "cache_state", "pairs", *_OF_DROP, "evidence", "effective_p50")
VERDICT_COLUMNS = ("task", "model", "series", "kv_unit", "bin_idx", "bin", *_OF_VERDICT, *_OF_SUITE)
COMPARISON_COLUMNS = ("task", "model", "kv_unit", "bin", *columns(Comparison))
CHANGE_COLUMNS = ("task", "model", "kv_unit", *columns(OutcomeChange))


def level_rows(task: Results) -> list[Row]:
    """A row for every run of a task, full cache and its repeats among them: over all lengths, then in each bin."""
    places = [(ALL, WHOLE), *((b.bin_idx, b.label) for b in task.bins)]
    return [
        row
        for run in task.runs
        for bin_idx, label in places
        if (row := _level_row(task, run, bin_idx, label)) is not None
    ]


def verdict_rows(task: Results) -> list[Row]:
    """A row for every series of a task: over all lengths, then in each bin."""
    return [
        _full(
            VERDICT_COLUMNS,
            task=task.task,
            model=_model(task),
            series=series,
            kv_unit=task.unit_of(series),
            bin_idx=bin_idx,
            bin=label,
            **{name: getattr(verdict, name) for name in _OF_VERDICT},
        )
        for series in task.series
        for bin_idx, label in [(ALL, WHOLE), *((b.bin_idx, b.label) for b in task.bins)]
        if (verdict := task.verdict(series, bin_idx)) is not None
    ]


def comparison_rows(task: Results) -> list[Row]:
    """A row for every two series at one budget in a bin; with full cache under the levels' other restrictions too."""
    labels = {ALL: WHOLE} | {b.bin_idx: b.label for b in task.bins}
    return [
        _full(
            COMPARISON_COLUMNS,
            task=task.task,
            model=_model(task),
            kv_unit=task.unit_of(row.series_b),
            bin=labels.get(row.bin_idx, ""),
            **{name: getattr(row, name) for name in columns(Comparison)},
        )
        for row in (*task.comparisons, *task.beside_constrained)
    ]


def change_rows(task: Results) -> list[Row]:
    """A row for every level and measure: lengths, cut-offs and times, paired with full cache answer by answer."""
    return [
        _full(
            CHANGE_COLUMNS,
            task=task.task,
            model=_model(task),
            kv_unit=task.unit_of(row.series),
            **{name: getattr(row, name) for name in columns(OutcomeChange)},
        )
        for row in task.changes
    ]


def suite_level_rows(suite: SuiteResults) -> list[Row]:
    """The mean over tasks at every level, full cache first; empty for one task."""
    if not suite.stats:
        return []
    first = suite.stats[0]
    about: Row = {"task": MEAN, "model": _model(suite.first), "bin_idx": ALL, "bin": WHOLE}
    full = next((stat for stat in suite.stats if not stat.repeat_idx), first)
    rows = [
        _full(
            LEVEL_COLUMNS,
            **about,
            series=FULL,
            kv_budget=1.0,
            kv_unit="fraction",
            repeat_idx=0,
            n=full.n,
            n_clusters=full.n_clusters,
            acc_mean=full.mean_full,
        )
    ]
    return rows + [_mean_row(about, suite, stat) for stat in _in_order(suite)]


def suite_verdict_rows(suite: SuiteResults) -> list[Row]:
    """A row for every series over all tasks together; empty for one task."""
    return [
        _full(
            VERDICT_COLUMNS,
            task=ALL_TASKS,
            model=_model(suite.first),
            series=verdict.series,
            kv_unit=suite.unit,
            bin_idx=ALL,
            bin=WHOLE,
            acc_full=verdict.mean_full,
            safe_budget=verdict.suite_safe,
            role=verdict.asked.get("role"),
            **{name: getattr(verdict, name) for name in _OF_SUITE},
            **{name: getattr(verdict, name) for name in _SHARED},
        )
        for series in suite.series
        if (verdict := suite.verdict(series)) is not None
    ]


_SHARED = ("verdict", "verdict_text", "n_needed", "evidence", "partial")  # of both kinds of verdict


def _level_row(task: Results, run: Run, bin_idx: int, label: str) -> Row | None:
    stat, drop, evidence = task.stat(run, bin_idx), task.drop(run, bin_idx), task.evidence.get(run.run_id)
    if stat is None:
        return None
    full = task.stat(task.full, bin_idx)
    of_full = stat.acc_mean / full.acc_mean if stat.acc_mean is not None and full and full.acc_mean else None
    row: Row = {name: getattr(stat, name) for name in _OF_STAT}
    if drop is not None:
        row |= {name: getattr(drop, name) for name in _OF_DROP} | {"pairs": drop.n}
    return _full(
        LEVEL_COLUMNS,
        task=task.task,
        model=run.model_name,
        series=run.series,
        kv_budget=run.kv_budget,
        kv_unit=run.kv_unit,
        repeat_idx=run.repeat_idx,
        bin_idx=bin_idx,
        bin=label,
        acc_of_full=of_full,
        cache_state=str(cache_state(stat.cached_share)),
        evidence=evidence.status if evidence else None,
        effective_p50=evidence.effective_p50 if evidence else None,
        **row,
    )


def _in_order(suite: SuiteResults) -> Iterator[SuiteStat]:
    """Repeats of full cache, then each series from its largest budget down."""
    yield from suite.controls
    for series in suite.series:
        yield from suite.levels(series)


def _mean_row(about: Row, suite: SuiteResults, stat: SuiteStat) -> Row:
    return _full(
        LEVEL_COLUMNS,
        **about,
        series=stat.series,
        kv_budget=stat.kv_budget,
        kv_unit="fraction" if stat.repeat_idx else suite.unit,
        repeat_idx=stat.repeat_idx,
        n=stat.n,
        n_clusters=stat.n_clusters,
        acc_mean=stat.mean_here,
        acc_of_full=stat.mean_here / stat.mean_full if stat.mean_here is not None and stat.mean_full else None,
        pairs=stat.n,
        drop_mean=stat.drop_mean,
        drop_ci_low=stat.drop_ci_low,
        drop_ci_high=stat.drop_ci_high,
        p_safe=stat.p_safe,
        p_loss=stat.p_loss,
        p_collapse=stat.p_collapse,
    )


def _model(task: Results) -> str:
    return next((run.model_name for run in task.runs), "")


def _full(names: tuple[str, ...], **values: Any) -> Row:
    """The row with every column, in their order; None where a value isn't given."""
    return {name: values.get(name) for name in names}
