"""The verdict over several tasks in words: the one place that says it, for the stored `verdict_text`, the report, the
terminal and --json.

Pure functions of one row of suite_summary.
"""

from typing import Any

from analyzer.results.number_format import cache_kept, cache_share, listed, loss_size, number, plural
from analyzer.results.verdict_sentence import LengthReach
from analyzer.store.suite_tables import SuiteVerdict
from kvt_async.contract.vocabulary import SeriesVerdict

_NAMED = 4  # tasks that are named one by one; of more the first few and their number
_NAMED_LENGTHS = 3  # as _NAMED, of lengths


def verdict(v: SuiteVerdict, unit: str) -> str:
    """The verdict of one series over its tasks, in sentences of which the first stands alone."""
    return " ".join(part for part in (_headline(v, unit), *_beside(v, unit)) if part)


def headline(v: SuiteVerdict, unit: str) -> str:
    """The first sentence of the verdict alone."""
    return _headline(v, unit)


def in_few_words(v: SuiteVerdict, unit: str) -> str:
    """The verdict for a cell of a table or a chart's title."""
    if not v.judges and _without_evidence(v):
        return "no evidence: hardly any answer of a task was compressed"
    if not v.judges:
        return _REASONS[v.verdict]
    safe = "nothing proven safe" if v.suite_safe is None else f"safe on average to {cache_share(v.suite_safe, unit)}"
    if v.broken_somewhere is None:
        return safe if v.verdict == SeriesVerdict.NO_TRANSITION else f"{safe}; below: can't tell"
    return f"{safe}, a task broken from {cache_share(v.broken_somewhere, unit)} down"


def over(v: SuiteVerdict) -> str:
    """`13 tasks`, or `3 of 13 tasks` where the verdict is over some of those that were run."""
    stored = int(v.asked.get("stored_tasks", v.n_tasks))
    return plural(v.n_tasks, "task") if stored == v.n_tasks else f"{v.n_tasks} of {plural(stored, 'task')}"


_REASONS: dict[str, str] = {
    SeriesVerdict.NOTHING_TO_LOSE: "nothing to lose at full cache",
    SeriesVerdict.NO_BASELINE: "no full-cache baseline",
    SeriesVerdict.UNVERIFIED: "unverified: prompts were read shorter than sent",
}


def _without_evidence(v: SuiteVerdict) -> list[str]:
    """Tasks of which hardly any answer was compressed while it was generated."""
    return [task["task"] for task in v.tasks if task.get("no_evidence")]


def _sizes(v: SuiteVerdict) -> tuple[str, str]:
    """The margin and the guard in words."""
    kind = v.asked.get("margin_kind", "absolute")
    return loss_size(v.asked["margin"], kind), loss_size(v.guard, kind)


def _headline(v: SuiteVerdict, unit: str) -> str:
    m, g = _sizes(v)
    if v.verdict == SeriesVerdict.NO_BASELINE:
        missing = _names(v.asked.get("without_full", []))
        return f"No verdict over {over(v)}: there is no full-cache run of {missing} to compare with (add budget 1.0)."
    if v.verdict == SeriesVerdict.UNVERIFIED and (tasks := _without_evidence(v)):
        return (
            f"No evidence over {over(v)}: while they were generated, the cache of hardly any answer of {_names(tasks)} "
            "was compressed at any budget, so nothing is shown of what it does there. Longer answers, a smaller budget "
            "or a shorter interval would show it; analysis.tasks judges the others."
        )
    if v.verdict == SeriesVerdict.UNVERIFIED:
        short = _names([task["task"] for task in v.tasks if task["verdict"] == SeriesVerdict.UNVERIFIED])
        return f"Unverified over {over(v)}: prompts of {short} were read shorter than sent, so nothing is claimed."
    if v.verdict == SeriesVerdict.NOTHING_TO_LOSE:
        return (
            f"Nothing to lose over {over(v)}: full cache scores {number(v.mean_full)} on average, which is not shown "
            f"to be more than {m} above what answers without reading would score."
        )
    if lacking := v.asked.get("without_series"):
        return f"Cannot tell over {over(v)}: {_names(lacking)} has no run of this series."
    if v.mean_full is None:
        return f"Cannot tell over {over(v)}: there is no budget that all of them were run at."
    breaks = _breaks(v, unit)
    if v.suite_safe is not None:
        smallest = ", the smallest budget tested" if v.verdict == SeriesVerdict.NO_TRANSITION else ""
        lengths = _at_lengths(v)
        head = f"Safe on average over {over(v)}{lengths.reach} down to {cache_kept(v.suite_safe, unit)}{smallest}"
        below = "; below that, these examples can't tell" if v.verdict == SeriesVerdict.CANNOT_TELL else breaks
        means = f"safe: accuracy is proven to fall by less than {m} on average"
        return f"{head}, and there no task loses more than {g}{lengths.but}{below} ({means})."
    need = f"(safe: accuracy is proven to fall by less than {m} on average, and by less than {g} in every task)"
    if v.verdict == SeriesVerdict.CANNOT_TELL:
        head = f"Cannot tell over {over(v)} with {plural(int(v.asked['n']), 'pair')} a budget"
        return f"{head}: none is proven safe, and no task is proven to lose more than {m} {need}."
    return f"No budget below full cache is proven safe over {over(v)}{breaks} {need}."


def _at_lengths(v: SuiteVerdict) -> LengthReach:
    """How far the suite's safe budget holds at every length of every task: at all of them, or which are broken there,
    else which are not proven. Nothing is said where no task has several lengths, or the row doesn't hold them.

    Each length has its own claim, at its task's level. All of them together are an intersection, which needs no
    adjustment. That one of them is broken is not adjusted for their number: it is told as that length's alone.
    """
    lengths_of = [task.get("lengths", []) for task in v.tasks]
    if v.suite_safe is None or not all(lengths_of) or max(map(len, lengths_of), default=0) < 2:
        return LengthReach()
    lengths = [(f"{task['task']} at {at['label']} tokens", at) for task in v.tasks for at in task["lengths"]]
    broken = [name for name, at in lengths if at["broken"] is not None and at["broken"] >= v.suite_safe]
    if broken:
        verb = "is" if len(broken) == 1 else "are"
        return LengthReach(but=f", but taken alone {_names(broken, _NAMED_LENGTHS)} {verb} broken there")
    unproven = [name for name, at in lengths if at["safe"] is None or at["safe"] > v.suite_safe]
    if not unproven:
        return LengthReach(", and at every length of every task,")
    n_proven = len(lengths) - len(unproven)
    of = "of the task's" if v.n_tasks == 1 else "of the tasks'"
    if not n_proven:
        return LengthReach(but=f", but taken alone none {of} {len(lengths)} lengths is proven safe there")
    verb = "is" if n_proven == 1 else "are"
    return LengthReach(
        but=f", but taken alone only {n_proven} {of} {len(lengths)} lengths {verb} proven safe there "
        f"(not {_names(unproven, _NAMED_LENGTHS)})"
    )


def _breaks(v: SuiteVerdict, unit: str) -> str:
    """Which task breaks first, as the end of a sentence; empty where none is proven broken."""
    if v.broken_somewhere is None:
        return ""
    verb = "breaks" if len(v.broken) == 1 else "break"
    first = "every task breaks" if len(v.broken) == v.n_tasks > 1 else f"{_names(v.broken)} {verb} first,"
    return f"; {first} from {cache_share(v.broken_somewhere, unit)} down"


def _beside(v: SuiteVerdict, unit: str) -> list[str]:
    """What stands beside the first sentence: the worst task, safe and broken tasks, what more examples would tell."""
    if not v.judges or v.mean_full is None:
        return [look(v)]
    return [
        room(v),
        _worst(v, unit),
        _everywhere(v, unit),
        _broken(v, unit),
        needs(v, unit),
        _nothing_to_lose(v),
        look(v),
    ]


def room(v: SuiteVerdict) -> str:
    """That full cache is not shown to have more than the margin to lose; empty where it is."""
    floor = v.asked.get("floor", {"shown": True})
    if floor["shown"]:
        return ""
    scores = f"{number(v.mean_full)} against a floor of {number(floor['floor'])}"
    m, _ = _sizes(v)
    return f"Full cache is not proven to have more than {m} to lose ({scores}), so no budget is called safe."


def _worst(v: SuiteVerdict, unit: str) -> str:
    if v.worst_task is None or v.worst_task_bound is None:
        return ""
    m, _ = _sizes(v)
    size = loss_size(v.worst_task_bound, v.asked.get("margin_kind", "absolute"))
    at = cache_kept(v.asked["told"], unit)
    safe = f"at least {v.n_safe_tasks} of {v.n_tasks} tasks lose less than {m}" if v.n_safe_tasks else ""
    text = f"With {at}, no task loses more than {size} (the worst is {v.worst_task})"
    return f"{text}, and {safe}." if safe else f"{text}."


def _everywhere(v: SuiteVerdict, unit: str) -> str:
    m, _ = _sizes(v)
    if v.safe_everywhere is None:
        return ""
    return f"Down to {cache_kept(v.safe_everywhere, unit)}, every task is proven to lose less than {m}."


def _broken(v: SuiteVerdict, unit: str) -> str:
    m, _ = _sizes(v)
    parts = []
    if v.broken_somewhere is not None:
        verb = "loses" if len(v.broken) == 1 else "lose"
        where = cache_kept(v.broken_somewhere, unit)
        parts.append(f"From {where} down, {_names(v.broken)} {verb} more than {m}.")
    if v.mean_broken_budget is not None:
        parts.append(f"The mean loses more than {m} from {cache_kept(v.mean_broken_budget, unit)} down.")
    return " ".join(parts)


def needs(v: SuiteVerdict, unit: str) -> str:
    """How many examples would prove the first budget that is not proven safe; empty where no number can be given."""
    if v.n_needed is None:
        return ""
    aim = f"To prove {cache_kept(v.asked['first_open'], unit)} safe"
    short = [task["task"] for task in v.tasks if task["is_open"]]
    now = max((task["n"] for task in v.tasks), default=0)
    who = f"; {_names(short)} can't tell yet" if short and len(short) < v.n_tasks else ""
    would = f"about {plural(v.n_needed, 'example')} a task would do if they lose what they lost here"
    return f"{aim}, {would} ({now:,} now){who}."


def _nothing_to_lose(v: SuiteVerdict) -> str:
    empty = [task["task"] for task in v.tasks if task["verdict"] == SeriesVerdict.NOTHING_TO_LOSE]
    if not empty:
        return ""
    verb = "has" if len(empty) == 1 else "have"
    return (
        f"Nothing to lose: {_names(empty)} {verb} too little at full cache to show a loss, and still count in the mean."
    )


def look(v: SuiteVerdict) -> str:
    """That examples or tasks were added after an analysis; empty where none were."""
    share = v.asked.get("alpha_share")
    if not share:
        return ""
    return (
        f"Tasks or examples were added after an analysis (look {v.asked['look']}), so these claims spend "
        f"1/{round(1 / share)} of alpha."
    )


def _names(names: list[Any], most: int = _NAMED) -> str:
    told = [str(name) for name in names]
    if len(told) <= most:
        return listed(told)
    return listed([*told[: most - 1], f"{len(told) - most + 1} more"])
