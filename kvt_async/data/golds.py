"""Golds that nothing can match, and golds that everything matches: found before the first request is sent.

Each gold is scored against itself, which must give 1, and the empty answer against it, which must give 0, under the
task's own metric. A row whose right answer is nothing says so: `answers: []`, or `meta.unanswerable: true` beside an
empty gold; then only another answer must not be right. Of a metric that reads no golds, what it reads of meta is looked
at. Scoring is the analyzer's, of which this loads pure functions.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import BFCL_AST, TOOL_CALL
from kvt_async.data.sources.source import Row

SHOWN = 5
_OTHER = "kvt-probe"  # an answer that is nobody's
_EXACT = 1e-6  # ROUGE of a text with itself is 1 - 5e-9
_NOTHING = 'If nothing is the right answer, write "answers": [], or "meta": {"unanswerable": true} beside the gold.'


@dataclass(slots=True)
class GoldCheck:
    """Rows are added as they come; the first few that fail are kept to be named.

    `published`: nobody can correct the data, and official metrics have quirks: what fails is said and not refused,
    but where a metric with a form (a class, a number, a letter) can't give any gold of a row a point.
    """

    metric: str
    published: bool = False
    rows: int = 0
    n_refused: int = 0
    refused: list[str] = field(default_factory=list)
    n_noted: int = 0
    noted: list[str] = field(default_factory=list)
    n_calls: int = 0  # rows with expected calls, under a metric that reads text
    n_alternatives: int = 0  # rows with several expected calls, each of which is right alone
    n_lists: int = 0
    lists: list[str] = field(default_factory=list)

    @property
    def reads_golds(self) -> bool:
        """Whether rows need golds."""
        return _reads_golds(self.metric)

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._add(row)

    def _add(self, row: Row) -> None:
        self.rows += 1
        answers, meta = row.example.answers, row.example.meta
        if not self.reads_golds:
            if fault := _meta_fault(self.metric, meta):
                self.n_refused += 1
                _keep(self.refused, f"{row.where} ({row.example.example_id}): {fault}")
            return
        if self.metric == TOOL_CALL:
            self._add_calls(row)
            return
        if self.metric == BFCL_AST:
            self._add_accepted(row)
            return
        if "expected_calls" in meta:
            self.n_calls += 1
        if not answers:
            return
        unanswerable = meta.get("unanswerable") is True
        needed = json.dumps({name: meta[name] for name in _needs_meta(self.metric) if meta.get(name) is not None})
        scorable = [gold for gold in answers if gold != "[]" or "expected_calls" not in meta]  # the rest: no call
        faults = [f for gold in scorable if (f := _fault(self.metric, gold, needed, unanswerable))]
        if faults:
            line = f"{row.where} ({row.example.example_id}): {faults[0].words}"
            lost = len(faults) == len(answers) and all(fault.own == 0 for fault in faults)
            if not self.published or (lost and _has_form(self.metric)):
                self.n_refused += 1
                _keep(self.refused, line)
            else:
                self.n_noted += 1
                _keep(self.noted, line)
        if len(answers) == 1 and _is_list(answers[0]):
            self.n_lists += 1
            _keep(self.lists, f"{row.where}: {_short(answers[0])}")

    def _add_calls(self, row: Row) -> None:
        """Of expected calls. That nothing is right where no call is expected is meant."""
        from analyzer.metrics.single import expected_calls

        faults, n_calls = expected_calls(row.example.answers, row.example.meta)
        if faults:
            self.n_refused += 1
            _keep(self.refused, f"{row.where} ({row.example.example_id}): can't be matched: {faults[0]}")
        elif n_calls > 1:
            self.n_alternatives += 1

    def _add_accepted(self, row: Row) -> None:
        """Of accepted calls with their accepted values, which are no answer themselves."""
        from analyzer.metrics.single import accepted_calls

        if not isinstance(row.example.meta.get("bfcl"), dict):
            self.n_refused += 1
            _keep(self.refused, f"{row.where} ({row.example.example_id}): it has no meta.bfcl, as rows of bfcl have")
        elif fault := accepted_calls(row.example.answers, row.example.meta):
            self.n_noted += 1
            _keep(self.noted, f"{row.where} ({row.example.example_id}): {fault}")

    def remarks(self) -> list[str]:
        """What is worth saying of all rows. Raises ConfigError where rows must be corrected first."""
        if self.n_refused:
            more = [f"and {self.n_refused - SHOWN} more rows"] if self.n_refused > SHOWN else []
            what = "have a gold that can't be scored with" if self.reads_golds else "can't be judged by"
            do = "Correct these rows, or choose another dataset.params.metric."
            raise ConfigError(
                f"{self.n_refused} of {self.rows} rows {what} the metric {self.metric}",
                details=(*self.refused, *more),
                do=f"{do} {_NOTHING}" if self.reads_golds else do,
            )
        lines = []
        if self.n_noted:
            lines.append(
                f"{self.n_noted} of {self.rows} rows have a gold that the published metric {self.metric} can't score "
                f"in full; they stay as published: {self.noted[0]}"
            )
        if self.n_calls:
            lines.append(
                f"{self.n_calls} of {self.rows} rows have expected_calls, and {self.metric} gets them as JSON text; "
                f"{TOOL_CALL} is the metric that compares calls (dataset.params.metric)"
            )
        if self.n_alternatives:
            lines.append(
                f"{self.n_alternatives} of {self.rows} rows expect one of several calls; calls that must all be made "
                "are a list inside of expected_calls: [[..., ...]]"
            )
        if self.n_lists:
            lines.append(
                f"{self.n_lists} of {self.rows} rows have one gold that reads like a list ({self.lists[0]}): several "
                "accepted answers are a JSON list of texts"
            )
        return lines


def _keep(examples: list[str], line: str) -> None:
    if len(examples) < SHOWN:
        examples.append(line)


@dataclass(frozen=True, slots=True)
class _Fault:
    own: float  # the gold's score against itself
    words: str


@lru_cache(maxsize=1 << 12)  # classes, numbers and letters come again
def _fault(metric: str, gold: str, needed: str, unanswerable: bool) -> _Fault | None:
    """What is wrong with one gold; None: nothing. `needed`: the fields of meta that the metric needs, as JSON."""
    score, meta = _scorer(metric), json.loads(needed)
    own = score(_as_answer(metric, gold), (gold,), meta)
    if own < 1 - _EXACT:
        missing = [f"meta.{name}" for name in _needs_meta(metric) if name not in meta]
        why = f"; the row has no {', '.join(missing)}" if missing else ""
        classes = meta.get("all_classes")
        if metric.startswith("classification") and classes is not None and gold not in map(str, classes):
            why = "; meta.all_classes lacks it"
        return _Fault(own, f"can't be matched: {_short(gold)} as an answer scores {own:g}{why}")
    if not unanswerable and (empty := score("", (gold,), meta)) > 0:
        return _Fault(own, f"needs no answer: for {_short(gold)} the empty answer scores {empty:g}")
    if unanswerable and (other := score(_OTHER, (gold,), meta)) > 0:
        return _Fault(own, f"needs no answer: for {_short(gold)} any other answer scores {other:g}")
    return None


@lru_cache(maxsize=4)
def _scorer(metric: str) -> Any:
    from analyzer.metrics.single import scorer

    return scorer(metric)


def _as_answer(metric: str, gold: str) -> str:
    from analyzer.metrics.single import as_answer

    return as_answer(metric, gold)


@lru_cache(maxsize=4)
def _reads_golds(metric: str) -> bool:
    from analyzer.metrics.single import reads_golds

    return reads_golds(metric)


def _meta_fault(metric: str, meta: Mapping[str, Any]) -> str:
    from analyzer.metrics.single import meta_fault

    return meta_fault(metric, meta)


@lru_cache(maxsize=4)
def _needs_meta(metric: str) -> tuple[str, ...]:
    from analyzer.metrics.single import needs_meta

    return needs_meta(metric)


@lru_cache(maxsize=4)
def _has_form(metric: str) -> bool:
    from analyzer.metrics.single import has_form

    return has_form(metric)


def _is_list(gold: str) -> bool:
    """A list of texts that was written as one text, in JSON's or Python's way."""
    if not (gold.startswith("[") and gold.endswith("]")) or len(gold) > 10_000:
        return False
    try:
        value = ast.literal_eval(gold)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _short(gold: str) -> str:
    return repr(gold if len(gold) <= 60 else f"{gold[:59]}…")
