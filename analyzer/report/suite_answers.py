"""The first screen over several tasks as data: which sentences answer which question, and of which series.

The verdict's sentences are made in results/suite_sentence; what a single task says stands in its own section.
"""

from dataclasses import replace

from analyzer.read import declared_plan
from analyzer.report.answers import Answer, AnswerKey, FirstScreen, chosen_level
from analyzer.report.caveats import REFERENCE, TINY, caveats
from analyzer.results import confidence, sentences, suite_sentence
from analyzer.results.decode_words import decode_levels
from analyzer.results.number_format import cache_kept, interval, loss_size, number, percent, plural
from analyzer.results.outcome_words import outcome_sentences
from analyzer.results.series_names import series_name, series_names
from analyzer.results.suite_alarms import NAMED, some, suite_alarms
from analyzer.results.suite_results import SuiteResults
from analyzer.store.suite_tables import SuiteVerdict
from kvt_async.contract.formulas.sample_seed import has_other_seeds
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EvidenceStatus, SeriesVerdict

_PRICED = 0.05  # the margin of the price: calibrated for this one alone (docs/STATISTICS.md)
_PRICE = (
    "In general, of 13 tasks at a margin of 0.05, it takes about 250, 450 or 800 examples a task where 2, 5 or 10% of "
    "the answers change by chance (docs/STATISTICS.md); `kvt plan` reckons it for these tasks."
)

_ALIKE = 0.0005  # bounds nearer than this read alike, and name no task


def suite_screen(suite: SuiteResults, settings: Settings) -> FirstScreen:
    """Everything the first screen says of several tasks, headline series first."""
    first = suite.verdict(suite.series[0]) if suite.series else None
    lines: dict[AnswerKey, list[str]] = {
        AnswerKey.CHANGED: [_changed(suite, series) for series in suite.series],
        AnswerKey.FIRST_TO_BREAK: _first_to_break(suite, first),
        AnswerKey.WORST_TASK: _worst_task(suite, first),
        AnswerKey.EVERYWHERE: _everywhere(suite, first),
        AnswerKey.UNTOLD: _untold(suite, first),
        AnswerKey.NOTHING: _nothing_to_lose(first),
        AnswerKey.OTHER_SERIES: _other_series(suite),
        AnswerKey.CAUSES: _causes(suite),
        AnswerKey.ELSE: _else(suite, settings),
        AnswerKey.BUYS: _buys(suite),
        AnswerKey.APPLIED: _applied(suite),
        AnswerKey.CERTAINTY: _certainty(suite, first, settings),
        AnswerKey.LIMITS: _limits(suite),
    }
    told = {key: [text for text in texts if text] for key, texts in lines.items()}
    return FirstScreen(
        headline=suite_headline(suite, first),
        alarms=tuple(suite_alarms(suite)),
        caveats=_caveats(suite),
        answers=tuple(Answer(key, texts[0], tuple(texts[1:])) for key, texts in told.items() if texts),
    )


def _caveats(suite: SuiteResults) -> tuple[str, ...]:
    """The tasks' own, each once; of some tasks alone, with their names."""
    tasks_of: dict[str, list[str]] = {}
    for task in suite.chosen:
        for line in caveats(task):
            tasks_of.setdefault(line, []).append(task.task)
    return tuple(
        line if len(names) == len(suite.chosen) else f"{some(names)}: {line[0].lower()}{line[1:]}"
        for line, names in tasks_of.items()
    )


def suite_headline(suite: SuiteResults, v: SuiteVerdict | None) -> str:
    """The verdict of the first series over its tasks, or why there is none."""
    if not suite.series:
        return "Only full cache was run: there is no smaller budget to judge."
    if v is None:
        return f"{series_name(suite.series[0])}: no verdict over the tasks was computed."
    sentence = suite_sentence.headline(v, suite.unit)
    doubted = v.evidence == EvidenceStatus.UNVERIFIED and v.verdict != SeriesVerdict.UNVERIFIED
    said = f"{'Unverified, ' if doubted else ''}{series_name(v.series)}: {sentence[0].lower()}{sentence[1:]}"
    other = declared_plan.sentences(v.asked, v.series)
    return " ".join(text for text in (said, suite.rescored, other) if text)


def _changed(suite: SuiteResults, series: str) -> str:
    levels = [row for row in suite.levels(series) if row.drop_mean is not None]
    if not levels:
        return ""
    low = levels[-1]
    loss = interval(low.drop_mean, low.drop_ci_low, low.drop_ci_high)
    return (
        f"On average over {plural(low.n_tasks, 'task')}, accuracy of {series_name(series)} goes from "
        f"{number(low.mean_full)} at full cache to {number(low.mean_here)} with "
        f"{cache_kept(low.kv_budget, suite.unit)}: a paired loss of {loss} over {plural(low.n, 'pair')}."
    )


def _first_to_break(suite: SuiteResults, v: SuiteVerdict | None) -> list[str]:
    if v is None or not v.judges:
        return []
    m = _margin(v)
    mean = (
        f"The mean over tasks is proven to lose more than {m} from {cache_kept(v.mean_broken_budget, suite.unit)} down."
        if v.mean_broken_budget is not None
        else ""
    )
    if v.broken_somewhere is None:
        return [f"No task is proven to lose more than {m} at the smallest budget (Holm over the tasks).", mean]
    verb = "is" if len(v.broken) == 1 else "are"
    who = "All tasks" if len(v.broken) == v.n_tasks > 1 else some(v.broken)
    lowest = suite.levels(v.series)[-1:]
    all_broken = [row.broken for row in lowest if len(row.broken) > len(v.broken)]
    return [
        f"{who} {verb} proven to lose more than {m} from {cache_kept(v.broken_somewhere, suite.unit)} down "
        "(Holm over the tasks).",
        *(f"At the smallest budget: {some(names, 20)}." for names in all_broken),
        mean,
    ]


def _worst_task(suite: SuiteResults, v: SuiteVerdict | None) -> list[str]:
    if v is None or not v.judges or v.worst_task is None or v.worst_task_bound is None or not v.asked.get("told"):
        return []
    at = cache_kept(v.asked["told"], suite.unit)
    size = loss_size(v.worst_task_bound, v.asked.get("margin_kind", "absolute"))
    tasks = plural(v.n_tasks, "task")
    many = f"All {tasks}" if v.n_safe_tasks == v.n_tasks > 1 else f"At least {v.n_safe_tasks or 0:,} of {tasks}"
    safe = (
        f"{many} are proven to lose less than {_margin(v)} there."
        if v.n_safe_tasks
        else f"Over all tasks together, not even one is proven to lose less than {_margin(v)} there."
    )
    alike = sum(task.get("bound") is not None and task["bound"] > v.worst_task_bound - _ALIKE for task in v.tasks)
    who = "" if alike > 1 else f"; the one that may lose most is {v.worst_task}"
    return [f"With {at}, no task loses more than {size}{who}.", safe]


def _everywhere(suite: SuiteResults, v: SuiteVerdict | None) -> list[str]:
    if v is None or not v.judges:
        return []
    m = _margin(v)
    if v.safe_everywhere is not None:
        return [f"Down to {cache_kept(v.safe_everywhere, suite.unit)}, every task is proven to lose less than {m}."]
    price = _PRICE if m == loss_size(_PRICED) else "`kvt plan` says how many examples that takes."
    return [f"No budget is proven safe in every single task, with less than {m} lost in each. {price}"]


def _untold(suite: SuiteResults, v: SuiteVerdict | None) -> list[str]:
    """Tasks that can't tell, each with the examples that would, and what would settle the next budget."""
    if v is None or not v.judges:
        return []
    open_tasks = [task for task in v.tasks if task["verdict"] == SeriesVerdict.CANNOT_TELL]
    beside = [suite_sentence.room(v), suite_sentence.needs(v, suite.unit)]
    if not open_tasks:
        return beside
    now = [
        f"{task['task']} ({task['n']:,} pairs{_would(task['n'], task.get('n_needed'))})" for task in open_tasks[:NAMED]
    ]
    rest = f" and {len(open_tasks) - NAMED} more" if len(open_tasks) > NAMED else ""
    return [
        f"Of {plural(v.n_tasks, 'task')}, {len(open_tasks)} can't tell by themselves: {', '.join(now)}{rest}.",
        *beside,
    ]


def _would(n: int, needed: int | None) -> str:
    return f", about {needed:,} would" if needed and needed > n else ""


def _nothing_to_lose(v: SuiteVerdict | None) -> list[str]:
    names = [task["task"] for task in v.tasks if task["verdict"] == SeriesVerdict.NOTHING_TO_LOSE] if v else []
    if not names:
        return []
    if v and len(names) == v.n_tasks:
        return ["Every task has too little at full cache to show a loss."]
    verb, counts = ("has", "It still counts") if len(names) == 1 else ("have", "They still count")
    return [
        f"{some(names)} {verb} too little at full cache to show a loss. {counts} in the mean, which makes it look "
        "safer than the other tasks are."
    ]


def _other_series(suite: SuiteResults) -> list[str]:
    names_of: dict[str, list[str]] = {}
    for series in suite.series[1:]:
        if (v := suite.verdict(series)) is not None:
            names_of.setdefault(suite_sentence.in_few_words(v, suite.unit), []).append(series)
    others = [f"{series_names(names)}: {text}" for text, names in names_of.items()]
    return [f"Other series. {'; '.join(others)}."] if others else []


def _causes(suite: SuiteResults) -> list[str]:
    stats = [s for task in suite.tasks for run in task.runs if (s := task.stat(run)) is not None]
    failing = {
        task.task: n for task in suite.tasks if (n := sum(s.n_failures for r in task.runs if (s := task.stat(r))))
    }
    where = f"They are in {some(list(failing))}." if failing and len(failing) < len(suite.tasks) else ""
    return [sentences.failed_requests(stats).replace("Over all levels", "Over all tasks and levels"), where]


def _else(suite: SuiteResults, settings: Settings) -> list[str]:
    """What else than scores changed, task by task; of many sentences the first few. The headline's series alone."""
    alpha, first = settings.analysis.alpha, suite.series[:1]
    alone = [replace(t, runs=[r for r in t.runs if r.is_full or r.series in first]) for t in suite.tasks]
    lines = [f"{t.task}: {text[0].lower()}{text[1:]}" for t in alone for text in outcome_sentences(t, alpha)]
    more = len(lines) - NAMED
    return lines if more <= 0 else [*lines[:NAMED], f"{more} more in the sections of the tasks."]


def _buys(suite: SuiteResults) -> list[str]:
    """Bytes of cache at the headline's safe budget, over the tasks: from the least to the most that is saved."""
    v = suite.verdict(suite.series[0]) if suite.series else None
    saved, at, of = [], "", ""
    for task in suite.chosen:
        run = chosen_level(task, suite.series[0]) if suite.series else None
        if v is not None and v.suite_safe is not None:
            run = next((r for r in task.levels(suite.series[0]) if r.kv_budget == v.suite_safe), run)
        full, stat = task.stat(task.full), task.stat(run)
        if run is None or full is None or stat is None:
            continue
        level = next((d for d in decode_levels(task) if (d.series, d.budget) == (run.series, run.kv_budget)), None)
        peak = level.peak if level else None
        at, of = cache_kept(run.kv_budget, run.kv_unit), "the most that is held, means" if level else "medians"
        if peak is not None and peak["ratio"] is not None:
            saved.append(1 - peak["ratio"])
        elif full.kv_bytes_p50 and stat.kv_bytes_p50 is not None:
            saved.append(1 - stat.kv_bytes_p50 / full.kv_bytes_p50)
    if not saved or (v is not None and v.suite_safe is None):
        return ["Bytes, tokens and latencies of each task stand in its own section of the report."]
    low, high = percent(min(saved)), percent(max(saved))
    share = low if low == high else f"{low} to {high}"
    return [
        f"With {at}, the KV cache of a request is {share} smaller than at full cache ({of} of the tasks). Latencies "
        "of each task stand in its own section of the report."
    ]


def _applied(suite: SuiteResults) -> list[str]:
    if not suite.series:
        return []
    lines = []
    for series in suite.series:
        rows = [row for task in suite.tasks for row in task.statuses(series)]
        full = next((e for t in suite.tasks if t.full and (e := t.evidence.get(t.full.run_id))), None)
        text = sentences.evidence(rows, full)
        lines.append(f"{series_name(series)}: {text}" if len(suite.series) > 1 else text)
    if suite.first.canaries:
        overruled = any(task.overruling is not None for task in suite.tasks)
        lines.append(sentences.canary(suite.first.canaries, overruled=overruled))
    return lines


def _certainty(suite: SuiteResults, v: SuiteVerdict | None, settings: Settings) -> list[str]:
    lines = []
    for row in suite.controls:
        drop = interval(row.drop_mean, row.drop_ci_low, row.drop_ci_high)
        again = "run again with other seeds" if has_other_seeds(row.repeat_idx, settings.decoding) else "run again"
        lines.append(
            f"A/A control (full cache {again}), mean over tasks: a difference of {drop} over {plural(row.n, 'pair')}."
        )
    if not lines:
        lines.append(confidence.control([]))
    if v is not None and v.judges:
        level = confidence.level_text(float(v.asked.get("level", settings.analysis.alpha / 2)))
        shared = " Some contexts serve several tasks; they count once." if v.asked.get("shares_contexts") else ""
        lines.append(
            f"{plural(int(v.asked.get('n', 0)), 'pair')} per budget over {suite_sentence.over(v)}; a wrong “safe” or a "
            f"wrong “broken” has a chance of at most {level} each.{shared} What single tasks and lengths say below is "
            "exploratory beside it."
        )
        lines.append(suite_sentence.look(v))
    return lines


def _limits(suite: SuiteResults) -> list[str]:
    lines = []
    chosen, stored = suite.chosen, suite.tasks
    if len(chosen) < len(stored):
        of = f"{len(chosen)} of {plural(len(stored), 'task')}"
        lines.append(f"The verdict is over {of}; not in it: {some(t.task for t in stored if t not in chosen)}.")
    lines += [f"Left out: {task}, because {why}." for task, why in suite.left_out.items()]
    if any(r.model_name == REFERENCE for task in stored for r in task.runs):
        lines.append(TINY)
    return lines


def _margin(v: SuiteVerdict) -> str:
    return loss_size(v.asked.get("margin", 0.0), v.asked.get("margin_kind", "absolute"))
