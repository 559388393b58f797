"""What every source hands over: the rows, where each came from, and what the task itself fixes."""

import difflib
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.records import Example

HASH_BLOCK = 1 << 20
MOST = 10_000_000  # contexts, tokens or questions of generated data: more could be neither held nor sent


@dataclass(frozen=True, slots=True)
class Row:
    """One canonical example and where it stands in the source, for messages: `file:line`."""

    example: Example
    where: str
    last_turn: Example | None = None  # the last one of its conversation, once that was read whole; None: it is no turn


@dataclass(frozen=True, slots=True)
class ExampleSource:
    """An opened dataset. `rows()` can be called again and streams: no source holds its rows in memory."""

    revision: str  # pinned revision and/or "sha256:..." of the file; the generator's version for generated data
    metric: str  # name in the analyzer's registry of the task's own metric
    rows: Callable[[], Iterator[Row]]
    template: str | None = None  # the task's published prompt; None: contract.prompt.DEFAULT_TEMPLATE
    max_new_tokens: int | None = None  # published answer length; decoding.max_tokens is what is sent
    chat_template: bool = True  # False: published without a chat template
    first_line_only: bool = False  # scored on the first line of the answer
    notes: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)  # filled by rows(): what is missing from what was asked for
    published: bool = False  # nobody can correct its rows


@dataclass(frozen=True, slots=True)
class Published:
    """What a task is published with, as far as it is known before its data are opened.

    temperature, top_p: None where nothing is published. They are no defaults, since they depend on the model too; what
    a config has otherwise is said.
    """

    max_new_tokens: int
    metric: str
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None


def content_id(question: str, context: str, answers: Iterable[str], turns: object = None, tools: object = None) -> str:
    """The id of an example that brings none: 16 hex digits of its content's SHA-256, the same on every machine."""
    parts = [question, context, list(answers)] + [part for part in (turns, tools) if part]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def did_you_mean(wrong: str, names: Collection[str]) -> str:
    """'Did you mean X?' for a near miss (case included), else the whole list."""
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(wrong.lower(), list(folded), n=1, cutoff=0.6)
    if close:
        return f"Did you mean {folded[close[0]]}?"
    return f"Known: {', '.join(names)}."


def check_params(params: Mapping[str, Any], names: Collection[str], name: str) -> None:
    """Raises ConfigError for a key of dataset.params that this source does not know."""
    for key in params:
        if key not in names:
            raise ConfigError(
                f"{name} has no parameter {key!r}",
                where=f"dataset.params.{key}",
                do=did_you_mean(str(key), names) if names else f"{name} takes no parameters.",
            )


def check_most(key: str, value: float) -> None:
    """Raises ConfigError for a number in dataset.params that no data set has."""
    if value > MOST:
        raise ConfigError(
            f"{key} must be at most {MOST:,}, not {value}",
            where=f"dataset.params.{key}",
            do="Write contexts, tokens or examples as a whole number.",
        )


def unreadable(path: Path, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ConfigError(f"the data can't be read: {reason}", where=str(path), do="dataset.path must name readable data.")
