"""What a plugin imports: decorators that give kvt a metric, a data source or an eviction policy of your own.

A plugin is a Python file that a config names (`plugins: [file.py]`), or an installed package with entry points in the
groups kvt.metrics, kvt.sources, kvt.policies. This module loads no library beside the standard one, so that the
analysis of a plugin's metric needs no server and a sweep over its source no analysis. docs/EXTENDING.md has recipes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from kvt_async.contract import plugin_registry
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import NEEDS
from kvt_async.contract.plugin_registry import Kind, SourceTask
from kvt_async.contract.vocabulary import OUR_SOURCES

__all__ = ["SourceTask", "metric", "policy", "source"]

Meta = Mapping[str, Any]
_FIELD = re.compile(r"[\w-]+")
Score = Callable[[str, Sequence[str], Meta], float]
GoldScore = Callable[[str, str, Meta], float]
FormatOk = Callable[[str, Meta], bool]
Rows = Callable[[str, Path | None, Mapping[str, Any]], Any]
PolicyScore = Callable[[Any, Mapping[str, int]], Any]


class Shorthand(TypedDict, total=False):
    """Older words of the metric decorator."""

    needs_classes: bool  # needs_meta=("all_classes",)


@overload
def metric(
    name: str,
    *,
    each_gold: Literal[True],
    first_line: bool = False,
    needs_meta: Sequence[str] = (),
    needs_tools: bool = False,
    format_ok: FormatOk | None = None,
    packages: Sequence[str] = (),
    **shorthand: Unpack[Shorthand],
) -> Callable[[GoldScore], GoldScore]: ...


@overload
def metric(
    name: str,
    *,
    each_gold: Literal[False] = False,
    first_line: bool = False,
    needs_meta: Sequence[str] = (),
    needs_tools: bool = False,
    format_ok: FormatOk | None = None,
    packages: Sequence[str] = (),
    **shorthand: Unpack[Shorthand],
) -> Callable[[Score], Score]: ...


def metric(
    name: str,
    *,
    each_gold: bool = False,
    first_line: bool = False,
    needs_meta: Sequence[str] = (),
    needs_tools: bool = False,
    format_ok: FormatOk | None = None,
    packages: Sequence[str] = (),
    **shorthand: Unpack[Shorthand],
) -> Callable[[Any], Any]:
    """A metric: the function scores one answer, without its reasoning, in [0, 1], from (prediction, golds, meta).

    each_gold: it takes one gold, and the best score over golds counts. first_line: only the answer's first line is
    scored. needs_meta: names of fields of the example's meta; `meta` holds those of them that it has, and no others.
    needs_tools: `meta` holds the example's `tools` too, and the prediction is the reply's tool calls as JSON,
    [{name, arguments (text as sent), id}], where it made any, else its text with its reasoning. needs_classes: `meta`
    holds `all_classes` too. format_ok: (prediction, meta) -> whether the answer has the form that the
    task asks for. packages: what must be installed, checked before a request is sent.
    A score that is no number in [0, 1], or an exception, ends the scoring with an error that names the answer.
    """
    if unknown := [key for key in shorthand if key != "needs_classes"]:
        raise TypeError(f"metric() got an unexpected keyword argument {unknown[0]!r}")
    classes = shorthand.get("needs_classes", False)
    needed = [*needs_meta, *(["all_classes"] if classes else []), *(["tools"] if needs_tools else [])]
    _check_fields(name, needs_meta, needed)
    options = {
        "each_gold": each_gold,
        "first_line": first_line,
        "needs_meta": tuple(dict.fromkeys(needed)),
        "reads_calls": needs_tools,
        "format_ok": format_ok,
        "packages": tuple(packages),
    }

    def register(function: Any) -> Any:
        like: tuple[Any, ...] = ("", "" if each_gold else (), {})
        plugin_registry.add(Kind.METRIC, name, function, like=like, options=options, ours=NEEDS)
        return function

    return register


def _check_fields(metric: str, given: object, needed: Sequence[object]) -> None:
    """Raises ConfigError where needs_meta is no list of names of fields."""
    wrong = (
        given
        if isinstance(given, str)
        else next((f for f in needed if not (isinstance(f, str) and _FIELD.fullmatch(f))), None)
    )
    if wrong is not None:
        raise ConfigError(
            f"the metric {metric}: needs_meta {wrong!r} is no list of fields of meta",
            do='Write needs_meta=("NAME", ...), each of letters, digits, dash and underscore.',
        )


def source(
    name: str, *, tasks: Mapping[str, SourceTask], params: Sequence[str] = (), revision: str | None = None
) -> Callable[[Rows], Rows]:
    """A data source, `dataset.name`: the function yields the rows of a task from (task, path, params).

    A row is a dict as a line of a jsonl file is: question, context, answers, and optionally example_id and meta. `path`
    is dataset.path or None; `params` are dataset.params, of which those in `params` are allowed (and `metric`, which
    kvt reads itself). The function is called anew for each pass and must give the same rows again. revision: of the
    data; None: the SHA-256 of the plugin's file, and of `path` where that is a file.
    """
    wrong = [key for key, task in tasks.items() if not isinstance(task, SourceTask)]
    if not tasks or wrong:
        what = f"the task {wrong[0]} is no SourceTask" if wrong else "it has no tasks"
        raise ConfigError(f"the source {name}: {what}", do='Write tasks={"NAME": SourceTask("what it asks")}.')
    options = {"tasks": dict(tasks), "params": tuple(params), "revision": revision}

    def register(function: Rows) -> Rows:
        plugin_registry.add(Kind.SOURCE, name, function, like=("", None, {}), options=options, ours=OUR_SOURCES)
        return function

    return register


def policy(
    name: str, *, recent_share: float = 0.0, counts_attention: bool = False, **defaults: int
) -> Callable[[PolicyScore], PolicyScore]:
    """An eviction policy of `kvt serve`: the function scores the entries of a cache from (view, params).

    It returns an array [layers, kv_heads, length]; the highest stay. `view` is a kvt_async.serve.views.View;
    `defaults` are the policy's own parameters, whole numbers of 0 or more. recent_share: part of the budget that the
    newest entries get. counts_attention: view.received() is needed while an answer is generated, too.
    """

    def register(function: PolicyScore) -> PolicyScore:
        options = {"recent_share": recent_share, "counts_attention": counts_attention, "defaults": defaults}
        plugin_registry.add(Kind.POLICY, name, function, like=(None, {}), options=options)
        return function

    return register
