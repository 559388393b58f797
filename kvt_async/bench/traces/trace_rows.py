"""One request of a trace, as its file says, and what can be wrong with a row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.lengths import MOST_TOKENS

BlockId = int | str
MOST_SECONDS = 1e11  # beyond it a timestamp is none: Unix time in seconds has ten digits


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A request that a trace recorded. `at_s`: seconds on the trace's own clock; None: the row has no timestamp."""

    line: int  # from 1
    at_s: float | None
    input_tokens: int
    output_tokens: int | None
    blocks: Sequence[BlockId] | None = None  # which text fills the prompt's blocks; None: the trace doesn't say


class Unusable(Exception):
    """A row that is no request to send. Its text is the reason, in words that follow a number of rows."""


def length(value: Any, name: str, where: str) -> int:
    """Tokens: 4, 4.0 and "4" are 4. Raises ConfigError for what is no whole number from 0 to MOST_TOKENS."""
    number = _number(value)
    if number is None or not 0 <= number <= MOST_TOKENS or number % 1:
        raise ConfigError(
            f"{name} is {value!r}, which is no length: a whole number from 0 to {MOST_TOKENS:,}",
            where=where,
            do="Correct this row, or take it out.",
        )
    return int(number)


def seconds(value: Any, name: str, where: str, unit: float = 1.0) -> float | None:
    """A timestamp in seconds: a number of `unit` seconds each, or a date and time; None where there is none.

    Raises ConfigError for anything else.
    """
    if value is None or value == "":
        return None
    number = _number(value)
    if number is None and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
        if moment is not None:
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if number is None or not math.isfinite(number) or abs(number * unit) > MOST_SECONDS:
        raise ConfigError(
            f"{name} is {value!r}, which is no time: a number, or a date and time such as 2024-05-10 00:00:00.5",
            where=where,
            do="Correct this row, or take it out.",
        )
    return number * unit


def blocks(value: Any, where: str) -> Sequence[BlockId] | None:
    """The ids of a prompt's blocks; None where the row has none. Raises ConfigError for what is no list of ids."""
    if value is None:
        return None
    if not isinstance(value, list) or any(isinstance(one, bool) or not isinstance(one, int | str) for one in value):
        raise ConfigError("hash_ids is no list of numbers or strings", where=where, do="Correct this row.")
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None
    return None
