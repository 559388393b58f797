"""Tables over several tasks as text cells: persisted rows, formatted. Pure."""

from collections.abc import Callable

from analyzer.read.runs import Run
from analyzer.results import suite_sentence, verdict_sentence
from analyzer.results.confidence import ROLES, nothing_safe
from analyzer.results.number_format import NOTHING, cache_share, count, interval, number
from analyzer.results.results import Results
from analyzer.results.suite_results import SuiteResults
from analyzer.results.text_table import Table, table
from analyzer.store.suite_tables import SuiteStat

MEAN = "mean over tasks"


def suite_verdicts(suite: SuiteResults) -> Table:
    rows = []
    for series in suite.series:
        v = suite.verdict(series)
        if v is None:
            continue
        rows.append(
            {
                "Series": series,
                "Verdict": suite_sentence.in_few_words(v, suite.unit),
                "Safe on average": _or_none(v.suite_safe, suite.unit),
                "Guard of a task": number(v.guard),
                "No task loses more than": NOTHING if v.worst_task_bound is None else number(v.worst_task_bound),
                "Tasks proven safe": NOTHING if v.n_safe_tasks is None else f"{v.n_safe_tasks} of {v.n_tasks}",
                "Every task safe": _or_none(v.safe_everywhere, suite.unit),
                "A task broken from": cache_share(v.broken_somewhere, suite.unit),
                "Mean broken from": cache_share(v.mean_broken_budget, suite.unit),
                "Role": ROLES.get(v.asked.get("role", ""), v.asked.get("role", NOTHING)),
            }
        )
    note = (
        "Safe on average: the mean over tasks is proven to lose less than the margin, and every task less than the "
        "guard. “No task loses more than” and “tasks proven safe” hold at that budget, else at the largest one."
    )
    return table(rows, text_columns=2, note=note if rows else "")


def task_verdicts(suite: SuiteResults) -> Table:
    """Every task and series: what it says by itself, and what it lacks for the suite's next budget."""
    rows = []
    for series in suite.series:
        v = suite.verdict(series)
        beside = {row["task"]: row for row in v.tasks} if v else {}
        for task in suite.tasks:
            own, row = task.verdict(series), beside.get(task.task, {})
            if own is None:
                continue
            rows.append(
                {
                    "Task": task.task,
                    "Series": series,
                    "Verdict": verdict_sentence.in_few_words(own, task.unit),
                    "Safe budget": "none proven" if nothing_safe(own) else cache_share(own.safe_budget, task.unit),
                    "Broken from": cache_share(own.broken, task.unit),
                    "Loses at most": NOTHING if row.get("bound") is None else number(row["bound"]),
                    "Full cache": number(own.acc_full),
                    "Pairs": count(own.n),
                    "Contexts": count(row.get("n_contexts")),
                    "Examples needed": count(row.get("n_needed")),
                }
            )
    note = (
        "Exploratory: single tasks are not adjusted for being many. Loses at most: one-sided bound at the budget where "
        "the verdict over the tasks is told. Examples needed: of this task, so that the verdict over the tasks holds "
        "one budget further down; –: too much is lost there, or nothing is left to prove."
    )
    return table(rows, text_columns=3, note=note if rows else "")


def losses(suite: SuiteResults) -> Table:
    """Task x budget: the paired loss and its interval; the numbers of the map."""
    return _by_budget(
        suite,
        lambda row: interval(row.drop_mean, row.drop_ci_low, row.drop_ci_high),
        lambda task, run: (
            interval(d.drop_mean, d.drop_ci_low, d.drop_ci_high) if run and (d := task.drop(run)) else NOTHING
        ),
        full=None,
        note="Paired with full cache; 95% intervals, one task or the mean at a time.",
    )


def accuracies(suite: SuiteResults) -> Table:
    """Task x budget: accuracy, full cache first; the mean over tasks first, tasks that were left out last."""
    tabled = _by_budget(
        suite,
        lambda row: number(row.mean_here),
        lambda task, run: number(stat.acc_mean) if (stat := task.stat(run)) else NOTHING,
        full=lambda task: number(stat.acc_mean) if (stat := task.stat(task.full)) else NOTHING,
        note="Every task weighs alike in the mean, in a task every length bin, and in a bin every example.",
    )
    width = len(tabled.head)
    rows = [("left out", task, *([NOTHING] * (width - 2))) for task in suite.left_out]
    return Table(tabled.head, (*tabled.rows, *rows), 2, tabled.note)


def _by_budget(
    suite: SuiteResults,
    mean: Callable[[SuiteStat], str],
    cell: Callable[[Results, Run | None], str],
    *,
    full: Callable[[Results], str] | None,
    note: str,
) -> Table:
    budgets = sorted({r.kv_budget for t in suite.tasks for s in suite.series for r in t.levels(s)}, reverse=True)
    rows = []
    for series in suite.series:
        levels = {row.kv_budget: row for row in suite.levels(series)}
        head = [] if full is None else [next((number(row.mean_full) for row in levels.values()), NOTHING)]
        rows.append((series, MEAN, *head, *(mean(levels[b]) if b in levels else NOTHING for b in budgets)))
        for task in suite.tasks:
            runs = {run.kv_budget: run for run in task.levels(series)}
            own = [] if full is None else [full(task)]
            rows.append((series, task.task, *own, *(cell(task, runs.get(b)) for b in budgets)))
    names = [cache_share(b, suite.unit) for b in budgets]
    return Table(("Series", "Task", *([] if full is None else ["Full cache"]), *names), tuple(rows), 2, note)


def accounts(suite: SuiteResults) -> Table:
    rows = []
    for task in suite.tasks:
        counts = task.progress.values()
        rows.append(
            {
                "Task": task.task,
                "Responses": count(sum(p.responses for p in counts)),
                "Failures": count(sum(p.failures for p in counts)),
                "Pending": count(task.pending),
                "Examples": count(max((p.planned for p in counts), default=0) // task.samples),
                "Answers an example": count(task.samples),
            }
        )
    return table(rows)


def datasets(suite: SuiteResults) -> Table:
    """Where each task's examples come from, and how they are scored."""
    rows = []
    for task in suite.tasks:
        for d in task.datasets:
            rows.append(
                {
                    "Task": task.task,
                    "Data": f"{d['name']} / {d['task']}",
                    "Data set": d["dataset_id"],
                    "Metric": d["metric"],
                    "Source revision": d["source_revision"] or NOTHING,
                    "Scorer": ", ".join(task.scorer_versions) or NOTHING,
                }
            )
    return table(rows, text_columns=6)


def _or_none(budget: float | None, unit: str) -> str:
    return "none proven" if budget is None else cache_share(budget, unit)
