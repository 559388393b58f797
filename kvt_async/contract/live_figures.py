"""What a sweep or a bench at work says of itself, from its database alone: for `kvt status`, `kvt view` and scripts.

A session that sends writes a row of `client_health` every few seconds; its detail holds `live`: these figures, as far
as the session knows them then, all sender processes together. Any process may read while another one works.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Rows = Callable[..., Sequence[Any]]
"""(sql, *values) -> rows: `lambda sql, *values: conn.execute(sql, values).fetchall()`."""
EVERY_S = 5.0  # between two rows of a session at work; the first comes sooner
MOST_ERRORS = 3  # in one line


@dataclass(frozen=True, slots=True)
class ServerNow:
    """What the servers say of themselves at one instant: of several, counts are added and of shares the largest holds.

    None: they don't say. `kv_usage`: share of the KV cache in use, 0 to 1.
    """

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None

    @property
    def words(self) -> str:
        """'8 running, 2 waiting, KV 43%'; empty where they say nothing."""
        parts = [f"{n:.0f} {name}" for name in ("running", "waiting") if (n := getattr(self, name)) is not None]
        return ", ".join([*parts, *([f"KV {self.kv_usage:.0%}"] if self.kv_usage is not None else [])])


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """Counts are of this session's part so far: of one stage of a bench, of one task of a sweep at one server. Rates
    and times to first token are of the last seconds. None: not known."""

    name: str  # the stage, or 'sweep'
    run_id: str | None  # of the stage; None: a sweep, which sends to many runs at once
    planned: int | None  # None: as many as go in a time
    sent: int
    done: int  # answered
    failed: int  # given up
    in_flight: int
    sent_per_s: float
    done_per_s: float  # answered or given up
    output_tokens: int
    output_tokens_per_s: float
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    left_s: float | None  # until the last request is sent (a schedule), or ends (at this rate)
    retries: int = 0
    late: int = 0  # sent later than bench.late_ms after they were due
    held: int = 0  # had to wait for bench.max_in_flight
    errors: Mapping[str, int] = field(default_factory=dict)  # failed tries by what was wrong with them
    server: ServerNow | None = None  # None: its metrics page is not read

    def line(self, client: str) -> str:
        """'rate 4/s: 34/110, 0:19 left, sent 4.0/s, done 3.9/s, 480 tok/s, 8 in flight, TTFT p50 41 ms, p99 80 ms,
        client-clean, server 8 running, 2 waiting, KV 43%': for people. `client`: ClientVerdict; empty: not known."""
        parts = [f"{self.name}: {self.done + self.failed}" + (f"/{self.planned}" if self.planned else "")]
        if self.failed:
            worst = sorted(self.errors.items(), key=lambda each: -each[1])[:MOST_ERRORS]
            parts.append(f"{self.failed} failed ({', '.join(f'{n} {name}' for name, n in worst)})")
        if self.left_s is not None:
            parts.append(f"{span(self.left_s)} left" if self.left_s > 0 else "all sent")
        parts += [f"sent {self.sent_per_s:.1f}/s", f"done {self.done_per_s:.1f}/s"]
        parts += [f"{self.output_tokens_per_s:.0f} tok/s", f"{self.in_flight} in flight"]
        if self.ttft_p50_ms is not None and self.ttft_p99_ms is not None:
            parts.append(f"TTFT p50 {self.ttft_p50_ms:.0f} ms, p99 {self.ttft_p99_ms:.0f} ms")
        parts += [client] if client else []
        if self.server is not None and self.server.words:
            parts.append(f"server {self.server.words}")
        counts = ((self.retries, "retries"), (self.late, "sent late"), (self.held, "held by max_in_flight"))
        return ", ".join([*parts, *(f"{n} {what}" for n, what in counts if n)])


@dataclass(frozen=True, slots=True)
class LiveReading:
    """Figures of a session as of `at` (UTC, ISO 8601). `over`: what they are about has ended since."""

    session_id: str
    at: str
    over: bool
    client: str  # ClientVerdict, so far
    client_error_ms: float  # bound on this client's own error, so far
    client_signal: str  # the measurement that it comes from
    figures: LiveFigures

    @property
    def line(self) -> str:
        """The figures as a line for people."""
        return self.figures.line(self.client)

    @property
    def json(self) -> dict[str, Any]:
        """As `kvt status --json` has it."""
        head = {name: getattr(self, name) for name in ("session_id", "at", "over")}
        client = {name: getattr(self, name) for name in ("client", "client_error_ms", "client_signal")}
        return head | client | asdict(self.figures) | {"line": self.line}


def live_figures(rows: Rows, exp_group_id: str, generation: int) -> LiveReading | None:
    """The newest figures of a generation's newest session; None: it has told none, since it is over in an instant, has
    just begun or is of an older kvt."""
    readings = live_history(rows, exp_group_id, generation, most=1)
    return readings[0] if readings else None


def live_history(rows: Rows, exp_group_id: str, generation: int, most: int = 720) -> list[LiveReading]:
    """The last `most` figures of a generation's newest session, the oldest first."""
    readings = []
    newest = rows(_SQL, exp_group_id, generation, most)
    for session_id, at, verdict, error_ms, signal, text, is_over in reversed(newest):
        live = json.loads(text)
        server = ServerNow(**live.pop("server")) if live.get("server") is not None else None
        known = {name: value for name, value in live.items() if name in LiveFigures.__slots__}
        figures = LiveFigures(**{**known, "server": server})
        readings.append(LiveReading(session_id, at, bool(is_over), verdict, error_ms, signal, figures))
    return readings


def span(seconds: float | None) -> str:
    """'0:19', '1:02:40'; 'unknown'."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_SQL = """
SELECT h.session_id, h.created_at, h.verdict, h.error_bound_ms, h.signal, json_extract(h.detail_json, '$.live'),
       EXISTS (SELECT 1 FROM session_ends e WHERE e.session_id = h.session_id)
       OR EXISTS (SELECT 1 FROM bench_window_ends w WHERE w.session_id = h.session_id
                  AND w.run_id = json_extract(h.detail_json, '$.live.run_id'))
FROM client_health h
WHERE h.session_id = (SELECT s.session_id FROM sessions s WHERE s.exp_group_id = ? AND s.generation = ?
                      ORDER BY s.started_at DESC, s.rowid DESC LIMIT 1)
  AND json_extract(h.detail_json, '$.live') IS NOT NULL
ORDER BY h.created_at DESC LIMIT ?
"""
