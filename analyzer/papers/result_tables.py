"""A sweep's results as tables: the rows of results/result_rows.py, written as the report writes numbers. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analyzer.papers.table_formats import TitledTable
from analyzer.results import result_rows
from analyzer.results.memory import load_of, saved_gib
from analyzer.results.number_format import (
    NOTHING,
    amount,
    budget,
    cache_share,
    count,
    interval,
    number,
    percent,
    seconds,
    signed,
)
from analyzer.results.result_rows import Row
from analyzer.results.results import ALL, Results
from analyzer.results.suite_results import SuiteResults
from analyzer.results.text_table import Table
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EvidenceStatus, Unit

Cell = Callable[[Row], str]
UNPROVEN = (EvidenceStatus.UNVERIFIED, EvidenceStatus.CONTRADICTED)


@dataclass(frozen=True)
class TableKind:
    """A table's name, title, columns (head -> cell), how many of them are text, and its note."""

    name: str
    title: str
    columns: dict[str, Cell]
    text_columns: int
    note: str = ""
    keys: tuple[str, ...] = ()  # the columns of its rows, where they are not all

    def of(self, rows: Sequence[Row], *, several: bool) -> TitledTable:
        """The table of these rows; without `several` tasks their column is left out."""
        columns = {head: cell for head, cell in self.columns.items() if several or head != "Task"}
        n_text = self.text_columns - (0 if several or "Task" not in self.columns else 1)
        cells = tuple(tuple(cell(row) for cell in columns.values()) for row in rows)
        values = [{name: row[name] for name in self.keys} for row in rows] if self.keys else list(rows)
        return TitledTable(self.name, self.title, Table(tuple(columns), cells, n_text, self.note), values)


def p_value(value: float | None) -> str:
    """Three digits; what is smaller reads as such."""
    return NOTHING if value is None else "<0.001" if value < 0.001 else number(value, 3)


def _series(row: Row) -> str:
    return str(row["series"]) + (f" (A/A {row['repeat_idx']})" if row["repeat_idx"] else "")


def _mean(name: str, digits: int = 2) -> Cell:
    return lambda row: interval(row[f"{name}_mean"], row[f"{name}_ci_low"], row[f"{name}_ci_high"], digits)


def _evidence(row: Row) -> str:
    status = row["evidence"] or NOTHING
    return str(status).upper() if status in UNPROVEN else str(status)


def _budget(name: str) -> Cell:
    return lambda row: cache_share(row[name], row["kv_unit"])


def _safe(row: Row) -> str:
    """Full cache itself is no budget that anybody has to prove."""
    at = row["safe_budget"]
    return "none proven" if at is None or at == 1 else _budget("safe_budget")(row)


def _half(row: Row) -> str:
    if row["half_loss_budget"] is None:
        return NOTHING
    in_words = percent if row["kv_unit"] == Unit.FRACTION else count
    at, low, high = (in_words(row[f"half_loss_{end}"]) for end in ("budget", "ci_low", "ci_high"))
    return f"{at} [{low}, {high}]"


LEVEL: dict[str, Cell] = {
    "Task": lambda row: row["task"],
    "Series": _series,
    "Budget": lambda row: budget(row["kv_budget"], row["kv_unit"]),
}
ACCURACY: dict[str, Cell] = {
    "n": lambda row: count(row["n"]),
    "Accuracy [95% CI]": _mean("acc"),
    "Of full cache": lambda row: percent(row["acc_of_full"]),
}
LOSS: dict[str, Cell] = {
    "Pairs": lambda row: count(row["pairs"]),
    "Loss [95% CI]": _mean("drop"),
    "Worse / better": lambda row: NOTHING if row["n_worse"] is None else f"{row['n_worse']} / {row['n_better']}",
    "p (within margin)": lambda row: p_value(row["p_safe"]),
    "p (loss)": lambda row: p_value(row["p_loss"]),
    "p (beyond margin)": lambda row: p_value(row["p_collapse"]),
}
LENGTH: dict[str, Cell] = {"Prompt tokens": lambda row: row["bin"]}
TIMES = {"TTFT p50": "ttft_p50_s", "TPOT p50": "tpot_p50_s", "Latency p50": "latency_p50_s"} | {
    "Latency p95": "latency_p95_s"
}

_OF_ACCURACY = (
    *result_rows.KEYS,
    *("n", "n_clusters", "acc_mean", "acc_std", "acc_ci_low", "acc_ci_high", "acc_ci_method", "acc_of_full"),
    *("acc_answered", "em_mean", "f1_mean", "n_failures", "fail_rate", "fail_ci_low", "fail_ci_high"),
    *("identical_to_full", "evidence", "effective_p50"),
)
_OF_LOSS = (
    *result_rows.KEYS,
    *("pairs", "drop_mean", "drop_ci_low", "drop_ci_high", "n_worse", "n_better", "p_safe", "p_loss", "p_collapse"),
    *("test_method", "drop_failures", "drop_answers", "within_noise", "evidence"),
)
_OF_COST = (
    *result_rows.KEYS,
    *("n", "acc_mean", "kept_fraction_p50", "kept_tokens_p50", "kv_bytes_p50", "saved_gib", "saved_gib_at"),
    *("prompt_tokens_p50", "prompt_tokens_p95", "completion_tokens_p50", "completion_tokens_p95"),
    *("ttft_p50_s", "ttft_p95_s", "ttfb_p50_s", "tpot_p50_s", "tpot_p95_s", "latency_p50_s", "latency_p95_s"),
    *("cached_share", "cache_state", "evidence"),
)

_PAIRED = (
    "Paired with full cache, answer by answer. p (within margin): that the loss is the margin or more, small means "
    "proven safe; p (loss): that nothing is lost; p (beyond margin): that the margin or less is lost."
)
VERDICTS = TableKind(
    "verdicts",
    "What is proven of each series",
    {
        "Task": lambda row: row["task"],
        "Series": lambda row: row["series"],
        "Prompt tokens": lambda row: row["bin"],
        "Verdict": lambda row: str(row["verdict"]).replace("_", " "),
        "Safe budget": _safe,
        "Real loss from": _budget("collapse_budget"),
        "Broken from": lambda row: _budget("mean_broken_budget" if row["zone_low"] is None else "zone_low")(row),
        "Half of the loss at [95% CI]": _half,
        "Full cache": lambda row: number(row["acc_full"]),
        "Pairs": lambda row: count(row["n"]),
        "Evidence": _evidence,
        "Role": lambda row: str(row["role"] or NOTHING),
    },
    4,
    "Safe, lost and broken budgets are proven ones; –: none is. Rows of single lengths are exploratory.",
)
ACCURACIES = TableKind(
    "accuracy", "Accuracy at each budget", LEVEL | ACCURACY | {"Evidence": _evidence}, 3, keys=_OF_ACCURACY
)
DROPS = TableKind("drops", "Loss against full cache", LEVEL | LOSS | {"Evidence": _evidence}, 3, _PAIRED, _OF_LOSS)
BINS = TableKind(
    "bins",
    "Accuracy and loss at each prompt length",
    LEVEL | LENGTH | ACCURACY | {name: LOSS[name] for name in ("Loss [95% CI]", "p (within margin)", "p (loss)")},
    4,
    "Exploratory: bins are not adjusted for being many.",
    tuple(dict.fromkeys((*_OF_ACCURACY, *_OF_LOSS))),
)
COST = TableKind(
    "cost",
    "Memory and latency at each budget",
    LEVEL
    | {
        "Cache kept p50": lambda row: percent(row["kept_fraction_p50"]),
        "Kept tokens p50": lambda row: count(row["kept_tokens_p50"]),
        "KV bytes p50": lambda row: amount(row["kv_bytes_p50"]),
    }
    | {head: (lambda row, name=name: seconds(row[name])) for head, name in TIMES.items()}
    | {"Cache state": lambda row: str(row["cache_state"])},
    3,
    "Compare latencies within one cache state only. –: the server doesn't say it.",
    _OF_COST,
)
COMPARISONS = TableKind(
    "comparisons",
    "Series against each other",
    {
        "Task": lambda row: row["task"],
        "Series": lambda row: f"{row['series_a']} − {row['series_b']}",
        "Prompt tokens": lambda row: row["bin"],
        "Budget": _budget("kv_budget"),
        "Pairs": lambda row: count(row["n"]),
        "Difference [95% CI]": lambda row: (
            NOTHING
            if row["diff_mean"] is None
            else f"{signed(row['diff_mean'])} [{number(row['diff_ci_low'])}, {number(row['diff_ci_high'])}]"
        ),
        "p": lambda row: p_value(row["p"]),
        "p (Holm)": lambda row: p_value(row["p_holm"]),
    },
    3,
    "Paired difference of accuracy at the same budget.",
)
CHANGES = TableKind(
    "changes",
    "What else changes with the budget",
    {
        "Task": lambda row: row["task"],
        "Series": _series,
        "Budget": lambda row: budget(row["kv_budget"], row["kv_unit"]),
        "Measure": lambda row: str(row["measure"]).replace("_", " "),
        "Pairs": lambda row: count(row["n"]),
        "Full cache": lambda row: number(row["full_value"], 3),
        "Here": lambda row: number(row["value"], 3),
        "Change [95% CI]": lambda row: interval(row["change"], row["change_ci_low"], row["change_ci_high"], 3),
        "p (Holm)": lambda row: p_value(row["p_holm"]),
    },
    4,
    "Paired with full cache, answer by answer; times in seconds. Change: a ratio of lengths and times, a difference of "
    "shares.",
)
KINDS = {kind.name: kind for kind in (VERDICTS, ACCURACIES, DROPS, BINS, COST, COMPARISONS, CHANGES)}


def sweep_tables(suite: SuiteResults, settings: Settings, what: str, task: str | None) -> list[TitledTable]:
    """The tables called `what` (all: every one that has rows), over all tasks or of one.

    Raises MissingPrerequisiteError for a task that the group doesn't have.
    """
    tasks = suite.tasks if task is None else [suite.task(task)]
    together = suite if task is None else SuiteResults(tasks, [], [])
    kinds = list(KINDS.values()) if what == "all" else [KINDS[what]]
    tables = [kind.of(_rows(kind, together, settings), several=suite.is_suite) for kind in kinds]
    return [table for table in tables if table.rows or what != "all"]


def _rows(kind: TableKind, suite: SuiteResults, settings: Settings) -> list[Row]:
    if kind is VERDICTS:
        return [
            *result_rows.suite_verdict_rows(suite),
            *(row for t in suite.tasks for row in result_rows.verdict_rows(t)),
        ]
    if kind is COMPARISONS:
        return [row for task in suite.tasks for row in result_rows.comparison_rows(task)]
    if kind is CHANGES:
        return [row for task in suite.tasks for row in result_rows.change_rows(task)]
    levels = [row for task in suite.tasks for row in result_rows.level_rows(task)]
    if kind is BINS:
        return [row for row in levels if row["bin_idx"] != ALL]
    whole = [row for row in levels if row["bin_idx"] == ALL]
    if kind is COST:
        return [row for task in suite.tasks for row in _with_saved(task, settings, whole)]
    whole = [*result_rows.suite_level_rows(suite), *whole]
    return [row for row in whole if row["drop_mean"] is not None] if kind is DROPS else whole


def _with_saved(task: Results, settings: Settings, rows: Sequence[Row]) -> list[Row]:
    """A task's rows with the GiB that a level saves at the user's load (analysis.serving), where that is known."""
    load = load_of(task, settings)
    runs = {(run.series, run.kv_budget, run.repeat_idx): run for run in task.runs}
    return [
        {
            **row,
            "saved_gib": saved_gib(task, runs[row["series"], row["kv_budget"], row["repeat_idx"]], load),
            "saved_gib_at": load.label if load else None,
        }
        for row in rows
        if row["task"] == task.task
    ]
