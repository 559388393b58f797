"""BFCL's single-turn score: whether a reply makes the calls that the entry accepts, by its AST check.

The gold is the published `ground_truth` as JSON text; entries of (ir)relevance have none. `meta.bfcl`: {category, mode,
functions}, the functions as published. Mode `fc`: the calls of the reply, or those that the model wrote into its text;
mode `prompt`: the text, `[f(a=1)]`, reasoning left out. Relevance: any call is right; irrelevance: none is, and a call
that can't be read is none, as in the official runner.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from analyzer.metrics import Meta, call_judge, metric
from analyzer.metrics.bfcl_checker import Accepted, Call, Checker
from analyzer.metrics.bfcl_literals import JAVA, JAVASCRIPT, Literals
from analyzer.metrics.bfcl_python import Undecodable, decoded
from analyzer.metrics.call_score import CallScore
from analyzer.metrics.calls_in_text import calls_of
from kvt_async.contract.formulas.metric_needs import BFCL_AST
from kvt_async.contract.formulas.reasoning import has_reasoning, strip_reasoning

FIELD = "bfcl"
_LANGUAGES: dict[str, Literals] = {"simple_java": JAVA, "simple_javascript": JAVASCRIPT}


@dataclass(frozen=True)
class BfclEntry:
    """What an entry is scored by."""

    category: str
    mode: str
    functions: tuple[Mapping[str, Any], ...]

    @property
    def wants_call(self) -> bool | None:
        """Whether any call is right (relevance) or none (irrelevance); None: it accepts certain calls."""
        return None if "relevance" not in self.category else "irrelevance" not in self.category

    @property
    def checker(self) -> Checker:
        return Checker(self.functions, _LANGUAGES.get(self.category), dots_replaced=self.mode == "fc")


def _is_formed(prediction: str, meta: Meta) -> bool:
    """Whether what is there can be read as calls; where no call is due, and in mode fc without any, it has no fault."""
    entry = _entry_of(meta)
    if entry is None:
        return False
    if entry.wants_call is False or (entry.mode == "fc" and not calls_of(prediction)):
        return True
    return calls(prediction, entry) is not None


@metric(BFCL_AST, format_ok=_is_formed, needs_meta=(FIELD,), reads_calls=True)
def bfcl_ast(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 if the reply makes the accepted calls, else 0.0; also where the example is none of BFCL.

    Source: ast_file_runner and relevance_file_runner of ShishirPatil/gorilla; equal on
    tests/analyzer/golden/bfcl_ast.jsonl.
    """
    return float(judged(prediction, golds, meta).is_right)


@call_judge(BFCL_AST)
def judged(prediction: str, golds: Sequence[str], meta: Meta) -> CallScore:
    """The parts of one reply's score. `schema_valid`: functions that are offered, with all required parameters and no
    unknown one; types count with the arguments, where the official check has them.
    """
    entry = _entry_of(meta)
    if entry is None:
        return CallScore(False, False, False, False)
    wanted, made = accepted(golds), calls(prediction, entry)
    if entry.wants_call is not None:
        is_right, is_formed = bool(made) is entry.wants_call, _is_formed(prediction, meta)
        return CallScore(is_formed, is_formed, is_formed and is_right, is_formed and is_right)
    if made is None:
        is_formed = _is_formed(prediction, meta)
        return CallScore(is_formed, is_formed, False, False)
    checker = entry.checker
    if checker.accepts(entry.category, made, wanted):
        return CallScore(True, True, True, True)
    if not all(checker.has_parameters(call) for call in made):
        return CallScore(True, False, False, False)
    names = sorted(checker.called_as(name) for one in wanted for name in one)
    return CallScore(True, True, sorted(name for call in made for name in call) == names, False)


def calls(prediction: str, entry: BfclEntry) -> list[Call] | None:
    """[{function: {parameter: value}}, ...]; None: the reply can't be read as calls."""
    if entry.mode == "fc":
        return _of_fields(prediction)
    try:
        return list(decoded(strip_reasoning(prediction) if has_reasoning(prediction) else prediction))
    except Undecodable:
        return None


def accepted(golds: Sequence[str]) -> list[Accepted]:
    """The calls that the published ground truth accepts; empty without one."""
    return list(json.loads(golds[0])) if golds and golds[0] else []


def fault_of_gold(golds: Sequence[str], meta: Meta) -> str:
    """Why the accepted calls themselves don't score, as a clause; empty where they do, where none is given, and for
    another language than Python, whose values would have to be written in it."""
    entry = _entry_of(meta)
    if entry is None:
        return "the row has no meta.bfcl, as rows of bfcl have"
    if entry.wants_call is not None or entry.category in _LANGUAGES:
        return ""
    checker = entry.checker
    if not (wanted := accepted(golds)):
        return "it has no ground truth"
    made = [{checker.called_as(name): _first(values)} for one in wanted for name, values in one.items()]
    return "" if checker.accepts(entry.category, made, wanted) else "the accepted calls don't pass the check themselves"


def _of_fields(prediction: str) -> list[Call] | None:
    """The reply's own calls, arguments by json.loads as the official handlers read them, or those in its text."""
    try:
        stored = json.loads(prediction) if prediction[:1] == "[" else None
    except (ValueError, RecursionError):
        stored = None
    if isinstance(stored, list) and all(isinstance(c, dict) and {"name", "arguments"} <= c.keys() for c in stored):
        read = [(call["name"], _loaded(call["arguments"])) for call in stored]
    else:
        read = [(call.name, call.arguments) for call in calls_of(prediction)]
    if not read or not all(isinstance(arguments, dict) for _, arguments in read):
        return None
    return [{name: arguments} for name, arguments in read]


def _loaded(arguments: Any) -> Any:
    """None for a text that is no JSON, an empty one too."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return None


def _first(values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Of each parameter a value that is accepted; what may only be left out is."""
    chosen = {name: next((value for value in options if value != ""), "") for name, options in values.items()}
    return {name: _of_lists(value) for name, value in chosen.items() if value != ""}


def _of_lists(value: Any) -> Any:
    if isinstance(value, dict) and all(isinstance(options, list) for options in value.values()):
        return _first(value)
    return [_of_lists(item) for item in value] if isinstance(value, list) else value


def _entry_of(meta: Meta) -> BfclEntry | None:
    return _entry(json.dumps(meta[FIELD])) if isinstance(meta.get(FIELD), dict) else None


@lru_cache(maxsize=1024)  # one for every level of an example
def _entry(text: str) -> BfclEntry:
    fields = json.loads(text)
    return BfclEntry(fields["category"], fields["mode"], tuple(fields["functions"]))
