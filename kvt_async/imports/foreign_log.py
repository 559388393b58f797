"""What the readers of other tools' files give: a log is one task at one level, scored by one metric."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources.json_rows import bounded_lines, json_object

MAX_LINE_MB = 64  # of a line of JSON: the same as in a dataset


@dataclass(frozen=True, slots=True)
class LogChoice:
    """What of a file is asked for; None: the only one there is."""

    task: str | None = None
    metric: str | None = None
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignAnswer:
    """One answer to one example. `score` None: the tool gave none, for the reason in `error`.

    epoch: 0, 1, ... of several answers to one prompt; prompt: as the tool recorded it, messages as JSON.
    """

    example_id: str
    epoch: int
    prompt: str
    golds: tuple[str, ...]
    text: str
    score: float | None
    error: str | None = None
    reasoning: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def question(self) -> tuple[str, tuple[str, ...]]:
        """What is equal where two logs asked the same."""
        return self.prompt, self.golds


@dataclass(frozen=True, slots=True)
class ForeignLog:
    """One task in one file. `answers` reads them, as often as it is called, one at a time.

    variant: the filter or the scorer that was chosen, '' where there is none; mean: the tool's own figure of the
    metric, None where the file doesn't hold it; notes: what the file can't tell, as sentences.
    """

    path: Path
    tool: str  # with its version
    model: str
    task: str
    metric: str
    variant: str
    made_at: str
    answers: Callable[[], Iterator[ForeignAnswer]]
    mean: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def tool_name(self) -> str:
        """Without its version."""
        return re.split(r" \d", self.tool)[0]

    @property
    def measure(self) -> str:
        """How the score is called: 'exact_match', 'exact_match (strict-match)'."""
        return f"{self.metric} ({self.variant})" if self.variant else self.metric


def records(path: Path, fields: Sequence[str], schema: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, record) of a file of JSON lines. Raises ConfigError for a line without one of `fields`; `schema` says
    what a line is."""
    with path.open("rb") as file:
        for where, line in bounded_lines(file, str(path), MAX_LINE_MB):
            record = json_object(line, where, schema)
            missing = [name for name in fields if name not in record]
            if missing:
                raise ConfigError(f"without {' and '.join(missing)}", where=where, do=schema)
            yield where, record


def chosen(options: list[str], asked: str | None, what: str, option: str, path: Path) -> str:
    """The one that is asked for, or the only one there is. Raises ConfigError that lists them."""
    if asked is None and len(options) == 1:
        return options[0]
    if asked in options:
        return asked
    said = f"no {what} {asked!r} is in this file" if asked is not None else f"this file holds {len(options)} {what}s"
    listed = ", ".join(sorted(options)[:20]) or "none"
    raise ConfigError(said, where=str(path), do=f"Choose one with {option}: {listed}.")


def unit_score(value: object, metric: str, where: str) -> float:
    """A score from 0 to 1. Raises ConfigError for another value."""
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    raise ConfigError(
        f"the score {str(value)[:40]} of {metric} is no number from 0 to 1",
        where=where,
        do="A loss is judged on that scale: choose a metric that has it with --metric, or divide the scores by 100.",
    )


def identity(answer: ForeignAnswer) -> str:
    """SHA-256 of what was asked."""
    return hashlib.sha256(orjson.dumps([answer.prompt, list(answer.golds)])).hexdigest()


def as_text(value: object) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
