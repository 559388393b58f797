"""What the parent of a sweep and its sender processes tell each other: see sweep/part_senders.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvt_async.contract.settings import Settings
from kvt_async.records import Json, Run


@dataclass(frozen=True, slots=True)
class PartOrder:
    """A sender's part of one task at the levels of its server. It answers with `PartEnded`."""

    settings: Settings  # the task's
    dataset_id: str
    runs: tuple[Run, ...]
    done: Sequence[bytearray]  # per run a byte for each answer: 0 where it is to be sent
    warm_up: Sequence[int]  # entries whose prompts are sent once before
    shown: Mapping[str, Json]  # run_id -> what its server says of itself


@dataclass(frozen=True, slots=True)
class PartNews:
    """How far a sender is with it. Counts of outcomes are per run."""

    done: Sequence[int]
    failed: Sequence[int]
    retries: int
    output_tokens: int
    in_flight: int
    failures: Mapping[str, int]
    errors: Mapping[str, int]
    ttft_ms: Sequence[float]  # of replies since the last news, the newest
    client: Json  # Health.row() so far


@dataclass(frozen=True, slots=True)
class Announced:
    """A line for people."""

    line: str


@dataclass(frozen=True, slots=True)
class PartEnded:
    """Everything of it that was sent is over and on disk."""

    news: PartNews
    probes: Sequence[Json]  # rows to be stored
