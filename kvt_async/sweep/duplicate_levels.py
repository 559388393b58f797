"""Levels that are one level on every prompt of this dataset: they run once, and it is said before anything is sent.

Two fractions may round to the same count of tokens, and a cap may lie above every prompt, where it is full cache. Both
depend on the prompts' lengths, so they are known once the manifest is. A level that is stored already stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kvt_async.contract.formulas.kv_budget import tokens_kept
from kvt_async.contract.vocabulary import Mode, Unit
from kvt_async.data.tokens import APPROX
from kvt_async.engine.request.kv_fields import rounding_of
from kvt_async.records import Level, Run
from kvt_async.store.reader import Reader

MAX_NAMED_BINS = 8


@dataclass(frozen=True, slots=True)
class Distinct:
    """Runs that differ, and sentences about those that don't."""

    runs: list[Run]
    notes: list[str]


def distinct(reader: Reader, dataset_id: str, runs: Sequence[Run]) -> Distinct:
    """Leave out every run that isn't stored yet and keeps, on every prompt, what another one keeps.

    With estimated token counts (`approx:chars/4`) nothing is left out: the server's counts are others than ours.
    """
    notes: list[str] = []
    longest = reader.rows(
        "SELECT bin_idx, max(token_len), max(context_tokens) FROM manifest_entries WHERE dataset_id = ? GROUP BY 1 "
        "ORDER BY 1",
        dataset_id,
    )
    dataset = reader.dataset(dataset_id)
    if not longest or dataset is None or dataset["tokenizer_name"] == APPROX:
        return Distinct(list(runs), notes)
    kept: list[Run] = []
    for run in runs:
        twin = next((other for other in kept if _one_level(reader, dataset_id, other.level, run.level, longest)), None)
        if twin is None:
            kept.append(run)
            notes += _whole_bins(run.level, longest)
            continue
        why = "no prompt is longer" if twin.level.is_full else "both keep the same tokens of every prompt"
        sentence = f"{run.level.label} and {twin.level.label} are one level here: {why}"
        if run.stored:
            kept.append(run)
            notes.append(f"{sentence}; both are stored already and stay")
        else:
            notes.append(f"{sentence}; it runs once, as {twin.level.label}")
    return Distinct(kept, notes)


def _one_level(reader: Reader, dataset_id: str, one: Level, other: Level, longest: Sequence[Sequence[int]]) -> bool:
    """`one` stands before `other`: full cache, or a level of the same series. What is kept while an answer is generated
    depends on how long that gets, which nobody knows yet."""
    if other.is_full or other.is_constrained or other.decodes or other.unit == Unit.BITS:
        return False
    if one.series != other.series and not one.is_full:
        return False
    column = 2 if other.mode == Mode.AGNOSTIC else 1
    at_most = max(row[column] for row in longest)
    if _kept(one, at_most) != _kept(other, at_most):
        return False  # the longest prompt tells them apart: no need to look at all
    name = ("token_len", "context_tokens")[column - 1]
    lengths = reader.rows(f"SELECT DISTINCT {name} FROM manifest_entries WHERE dataset_id = ?", dataset_id)
    return all(_kept(one, row[0]) == _kept(other, row[0]) for row in lengths)


def _kept(level: Level, length: int) -> int:
    if level.is_full:
        return length
    round_to, rounding = rounding_of(level)
    return tokens_kept(level.budget, level.unit, length, round_to=round_to, rounding=rounding)


def _whole_bins(level: Level, longest: Sequence[Sequence[int]]) -> list[str]:
    """A note about a cap above every prompt of some bins: there it is full cache, so their rows show no effect."""
    if level.is_full or level.decodes or level.unit != Unit.TOKENS:
        return []
    column = 2 if level.mode == Mode.AGNOSTIC else 1
    whole = [row[0] for row in longest if row[column] is not None and _kept(level, row[column]) == row[column]]
    if not whole:
        return []
    names = ", ".join(str(n) for n in whole[:MAX_NAMED_BINS]) + (", ..." if len(whole) > MAX_NAMED_BINS else "")
    return [f"{level.label} keeps every prompt of length bin {names} whole: there it is full cache"]
