"""One answer scored as `score_frame` scores a column of them, and no library of the analysis loaded: `kvt prepare` asks
before anything is sent.
"""

from collections.abc import Callable, Sequence
from functools import partial

from analyzer.metrics import Meta, find
from analyzer.metrics.normal import normalise, token_f1
from kvt_async.contract.formulas.reasoning import has_reasoning, strip_reasoning

Score = Callable[[str, Sequence[str], Meta], float]
"""(answer, golds, the example's meta) -> score in [0, 1]."""


def scorer(name: str) -> Score:
    """How one answer scores under a metric. ConfigError for an unknown metric, or, in use, for a missing package."""
    task = find(name)
    if task is None:
        return partial(_overlap, exact=name == "em")

    def score(answer: str, golds: Sequence[str], meta: Meta) -> float:
        said = strip_reasoning(answer) if has_reasoning(answer) and not task.reads_calls else answer
        if task.first_line:
            said = said.lstrip("\n").split("\n", 1)[0]
        return min(1.0, max(0.0, task.score(said, golds, meta)))

    return score


def has_form(name: str) -> bool:
    """Whether the metric reads one thing out of an answer: a class, a number, a letter."""
    task = find(name)
    return task is not None and task.format_ok is not None


def needs_meta(name: str) -> tuple[str, ...]:
    """The fields of an example's meta that the metric reads."""
    task = find(name)
    return () if task is None else task.needs_meta


def as_answer(name: str, gold: str) -> str:
    """A gold as the metric expects it of an answer."""
    task = find(name)
    return gold if task is None or task.as_answer is None else task.as_answer(gold)


def reads_golds(name: str) -> bool:
    """Whether the metric holds answers against golds; else against fields of meta alone."""
    task = find(name)
    return task is None or task.reads_golds


def parts(name: str, answer: str, meta: Meta, *, right: bool) -> dict[str, float]:
    """What the score of an answer is made of, by name, each in [0, 1]; empty where the metric names no parts. `right`:
    its score is 1."""
    task = find(name)
    if task is None or task.parts is None:
        return {}
    said = strip_reasoning(answer) if has_reasoning(answer) and not task.reads_calls else answer
    return dict(task.parts(None if right else said, meta))


def meta_fault(name: str, meta: Meta) -> str:
    """Why a metric that reads no golds can't judge an example, as a clause; empty where it can."""
    task = find(name)
    return "" if task is None or task.meta_fault is None else task.meta_fault(meta)


def expected_calls(golds: Sequence[str], meta: Meta) -> tuple[list[str], int]:
    """What of golds that are tool calls can't be scored, as sentences; and how many of them expect a call."""
    from analyzer.metrics.tool_call import expected, fault_of_gold, tools_of

    if broken := tools_of(meta).broken():
        return [broken], 0
    faults = [
        f"{gold if len(gold) <= 60 else f'{gold[:59]}…'}: {why}" for gold in golds if (why := fault_of_gold(gold, meta))
    ]
    return faults, sum(bool(expected(gold)) for gold in golds)


def accepted_calls(golds: Sequence[str], meta: Meta) -> str:
    """Why the calls that BFCL accepts for an entry don't score themselves, as a clause; empty: they do."""
    from analyzer.metrics.bfcl_ast import fault_of_gold

    return fault_of_gold(golds, meta)


def _overlap(answer: str, golds: Sequence[str], meta: Meta, *, exact: bool) -> float:
    normal, wanted = normalise(strip_reasoning(answer)), [normalise(gold) for gold in golds or ("",)]
    return float(normal in wanted) if exact else max(token_f1(normal, gold) for gold in wanted)
