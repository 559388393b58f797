"""What a parent and its sender processes tell each other, whatever is sent: who one is, what ends its work early."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kvt_async.contract.errors import KvtError
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EndReason


@dataclass(frozen=True, slots=True)
class Enlistment:
    """The first message to a sender: number `i` (0, 1, ...) of `n`, and where its server and its files are."""

    settings: Settings
    i: int
    n: int
    session_id: str
    endpoints: Sequence[str]
    group_db: Path  # the group's database, read alone
    db: Path  # its own one, until the parent takes over what is in it
    log: Path  # the run's log
    command: str  # as typed, secrets masked


@dataclass(frozen=True, slots=True)
class Halt:
    """To a sender: start no further request. `at_once`: nor wait for those in flight."""

    at_once: bool


@dataclass(frozen=True, slots=True)
class Tripped:
    """From a sender: its breaker ended its work."""

    reason: str
    ending: EndReason


@dataclass(frozen=True, slots=True)
class Unable:
    """From a sender: it can't go on, for this reason."""

    error: KvtError


@dataclass(frozen=True, slots=True)
class TooMany:
    """Both ways: the server said 429 or 503, and bounds that adapt are lowered in all processes."""
