"""Metrics by name. A metric is a pure function (prediction, golds, example) -> score in [0, 1], or a column rule.

`em` and `f1` are computed for every outcome over whole columns (fast/overlap.py) and need no function call per row; the
others here score one answer against its golds. fast/ says which of them also have a rule for whole columns.
`format_ok` of a metric says whether an answer has the form the task asks for (a number, a class name, ...); metrics
without a form have none, and then no answer is a FORMAT_ERROR.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, overload

from analyzer.metrics.call_score import CallScore
from kvt_async.contract import plugin_registry
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import NEEDS, check_known
from kvt_async.contract.plugin_registry import Kind, Origin, Plugin

Meta = Mapping[str, Any]
Score = Callable[[str, Sequence[str], Meta], float]
GoldScore = Callable[[str, str, Meta], float]
FormatOk = Callable[[str, Meta], bool]
AsAnswer = Callable[[str], str]
MetaFault = Callable[[Meta], str]
MetaScore = Callable[[str, Meta], float]
JudgeCalls = Callable[[str, Sequence[str], Meta], CallScore]
Parts = Callable[[str | None, Meta], Mapping[str, float]]

COLUMN_METRICS = ("em", "f1")  # computed in Polars for every outcome


@dataclass(frozen=True)
class AtTheEnd:
    """A `format_ok` of a form in which an answer ends: a reply that was cut before that has no fault of form.

    `states`: what an answer states at its end, equal texts for equal statements as far as that is plain; None: nothing.
    """

    states: Callable[[str], str | None]

    def __call__(self, prediction: str, meta: Meta) -> bool:
        return self.states(prediction) is not None


@dataclass(frozen=True)
class Metric:
    """A registered metric; `score` maps (answer, golds, example's meta) to [0, 1]."""

    name: str
    score: Score
    format_ok: FormatOk | None = None
    first_line: bool = False
    needs_meta: tuple[str, ...] = ()
    reads_calls: bool = False
    as_answer: AsAnswer | None = None  # how a gold reads as an answer, where a gold itself is none
    reads_given: bool = False  # the score that another tool gave, and nothing of the answer
    judge_calls: JudgeCalls | None = None  # of a metric of tool calls: the parts of an answer's score
    meta_fault: MetaFault | None = None  # of a metric that reads no golds: why an example can't be judged, or ""
    parts: Parts | None = (
        None  # what a score is made of, by name, each in [0, 1]; None for an answer: all of it is right
    )

    @property
    def reads_golds(self) -> bool:
        """Whether an answer is held against golds; else against the fields of meta alone."""
        return self.meta_fault is None


_REGISTRY: dict[str, Metric] = {}


@overload
def metric(
    name: str,
    *,
    each_gold: Literal[True],
    format_ok: FormatOk | None = None,
    first_line: bool = False,
    needs_meta: tuple[str, ...] = (),
    reads_calls: bool = False,
    as_answer: AsAnswer | None = None,
) -> Callable[[GoldScore], GoldScore]: ...


@overload
def metric(
    name: str,
    *,
    format_ok: FormatOk | None = None,
    first_line: bool = False,
    needs_meta: tuple[str, ...] = (),
    reads_calls: bool = False,
    as_answer: AsAnswer | None = None,
) -> Callable[[Score], Score]: ...


def metric(
    name: str,
    *,
    each_gold: bool = False,
    format_ok: FormatOk | None = None,
    first_line: bool = False,
    needs_meta: tuple[str, ...] = (),
    reads_calls: bool = False,
    as_answer: AsAnswer | None = None,
) -> Callable[[Any], Any]:
    """Register the decorated function under `name` and leave it as it is; a duplicate name is an error.

    each_gold: the function scores against one gold, and the best over golds counts. first_line: only the answer's
    first line is scored. needs_meta: the fields of the example's meta that are handed over, those of them it has;
    `meta` holds no others. reads_calls: the answer is the reply's tool calls as JSON, where it made any, else its text
    as it came, reasoning included. as_answer: a gold in the words of an answer, where a gold alone is none.
    """

    def register(function: Any) -> Any:
        if name in _REGISTRY or name in COLUMN_METRICS:
            raise ValueError(f"metric {name!r} is registered twice")
        score = partial(_best_over_golds, function) if each_gold else function
        _REGISTRY[name] = Metric(name, score, format_ok, first_line, needs_meta, reads_calls, as_answer)
        return function

    return register


def call_judge(name: str) -> Callable[[JudgeCalls], JudgeCalls]:
    """Let the decorated function tell the parts of an answer's score under the metric `name`, which is registered."""

    def register(function: JudgeCalls) -> JudgeCalls:
        _REGISTRY[name] = replace(_REGISTRY[name], judge_calls=function)
        return function

    return register


def metric_of_given_scores(name: str) -> Callable[[Score], Score]:
    """Register the decorated function, whose answer is the score that another tool gave. Raises ValueError as `metric`
    does."""

    def register(function: Score) -> Score:
        metric(name)(function)
        _REGISTRY[name] = replace(_REGISTRY[name], reads_given=True)
        return function

    return register


def metric_without_golds(
    name: str, *, needs_meta: tuple[str, ...], meta_fault: MetaFault, parts: Parts | None = None
) -> Callable[[MetaScore], MetaScore]:
    """Register the decorated (answer, meta) -> score, which holds answers against fields of meta alone.

    meta_fault: why an example can't be judged, as a clause, empty where it can. parts: what the score of an answer is
    made of, by names that are the same in many examples; of None, an answer that is right, all are 1. Raises ValueError
    as `metric` does.
    """

    def register(function: MetaScore) -> MetaScore:
        metric(name, needs_meta=needs_meta)(lambda answer, golds, meta: function(answer, meta))
        _REGISTRY[name] = replace(_REGISTRY[name], meta_fault=meta_fault, parts=parts)
        return function

    return register


def find(name: str) -> Metric | None:
    """The metric of that name; None for `em` and `f1`, which are column rules. ConfigError for an unknown name."""
    from analyzer.metrics import (  # noqa: F401  (importing registers)
        bfcl_ast,
        choice,
        code,
        given,
        instructions,
        letter,
        math_answer,
        prefixed_ratio,
        qa,
        rouge,
        scbench_scores,
        squad,
        stated_letter,
        tool_call,
    )

    if name in COLUMN_METRICS:
        return None
    if name not in _REGISTRY:
        check_known(name)
        plugin = plugin_registry.find(Kind.METRIC, name)
        if plugin is not None:
            return _of_plugin(plugin)
    return _REGISTRY[name]


def identity(name: str) -> str:
    """What tells a metric from another of its name: of a plugin's also the SHA-256 of its file. Raises as `find`."""
    of = origin(name)
    return name if of is None else f"{name} sha256:{of.sha256}"


def origin(name: str) -> Origin | None:
    """The file of a plugin's metric; None: it is one of kvt's. Raises as `find`."""
    check_known(name)
    plugin = None if name in NEEDS else plugin_registry.find(Kind.METRIC, name)
    return None if plugin is None else plugin.origin


def _of_plugin(plugin: Plugin) -> Metric:
    """A plugin's metric, whose scores are looked at: the others are tested."""
    options = plugin.options
    score = partial(_best_over_golds, plugin.function) if options["each_gold"] else plugin.function

    def checked(prediction: str, golds: Sequence[str], meta: Meta) -> float:
        about = (f"answer: {prediction[:200]!r}", f"golds:  {list(golds)[:5]!r}"[:300])
        try:
            value = float(score(prediction, golds, meta))
        except Exception as error:
            raise plugin.failed(error, about=about) from None
        if not 0 <= value <= 1:
            raise ConfigError(
                f"{plugin.says} scored {value:g}; a score is a number from 0 to 1",
                where=plugin.origin.path,
                details=about,
                do="Correct the plugin, then run the same command again.",
            )
        return value

    def has_form(prediction: str, meta: Meta) -> bool:
        try:
            return bool(options["format_ok"](prediction, meta))
        except Exception as error:
            raise plugin.failed(error, about=(f"answer: {prediction[:200]!r}",)) from None

    form = has_form if options["format_ok"] is not None else None
    return Metric(plugin.name, checked, form, options["first_line"], options["needs_meta"], options["reads_calls"])


def _best_over_golds(score: GoldScore, prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """The score against the gold that fits best; 0.0 without golds."""
    return max((score(prediction, gold, meta) for gold in golds), default=0.0)
