"""Rows of facts that charts and report read beside the derived ones (store/tables.py), each named after its table."""

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientRow:
    """The last client_health row of a session."""

    session_id: str
    verdict: str
    error_bound_ms: float
    signal: str
    loop_lag_p99_ms: float
    loop_lag_max_ms: float
    cpu_share: float
    gc_pause_max_ms: float


@dataclass(frozen=True, slots=True)
class SessionRow:
    session_id: str
    started_at: str
    command: str
    config_sha256: str
    kvt_version: str
    git_commit: str | None
    python: str
    platform: str
    engine_loop: str | None
    concurrency: int | None
    order_seed: int | None
    ended_at: str | None
    reason: str | None
    notes_json: str | None = None

    @property
    def notes(self) -> list[str]:
        """Sentences about its tasks: what was left out, what is not as the task is published."""
        return [str(note) for note in json.loads(self.notes_json or "[]")]


@dataclass(frozen=True, slots=True)
class Volume:
    """What one session moved. `wall_s` spans its first start to its last end on its own monotonic clock."""

    session_id: str
    n: int
    wall_s: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    n_done_alone: int = 0  # replies that [DONE] ended, without a finish_reason
