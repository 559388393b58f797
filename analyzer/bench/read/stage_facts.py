"""Facts of a bench -> frames. No SQL of a bench elsewhere, but for derived rows (stored_figures.py)."""

import json
import sqlite3
from dataclasses import dataclass, field, fields, replace
from typing import Any

import polars as pl

from analyzer.read.json_count import json_count
from analyzer.read.row_portions import read_frame
from analyzer.read.runs import Run, newest_generation
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.formulas.metric_samples import without_nan
from kvt_async.contract.load_shape import LoadShape
from kvt_async.contract.vocabulary import EndReason

Json = dict[str, Any]

REQUESTS: dict[str, Any] = {
    "request_id": pl.String,
    "session_id": pl.String,
    "phase": pl.String,
    "state": pl.String,
    "number": pl.Int64,
    "offset_ns": pl.Int64,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "group_idx": pl.Int64,
    "intended_ns": pl.Int64,
    "limits_ns": pl.Int64,
    "start_ns": pl.Int64,
    "conn_reused": pl.Int64,
    "conn_ready_ns": pl.Int64,
    "body_sent_ns": pl.Int64,
    "first_byte_ns": pl.Int64,
    "first_event_ns": pl.Int64,
    "first_text_ns": pl.Int64,
    "first_text_user_ns": pl.Int64,
    "coalesced": pl.Int64,
    "last_delta_ns": pl.Int64,
    "finish_ns": pl.Int64,
    "usage_ns": pl.Int64,
    "done_ns": pl.Int64,
    "end_ns": pl.Int64,
    "n_text_chunks": pl.Int64,
    "chunks": pl.Binary,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cached_tokens": pl.Int64,
    "streamed_tokens": pl.Int64,
    "error_type": pl.String,
    "http_status": pl.Int64,
    "n_attempts": pl.Int64,
    "empty": pl.Int64,
    "model": pl.String,
    "conversation_idx": pl.Int64,
    "turn_idx": pl.Int64,
    "think_ns": pl.Int64,
    "shared_tokens": pl.Int64,
}
"""One row per request that was started, and per turn that was not, for one before it had failed: marks of its last
attempt, `intended_ns` of its first in that session.

`state`: response | failure | pending. `first_byte_ns` and `first_text_ns` (of any output) end at the kernel's stamp
where there is one, `first_text_user_ns` at ours. `streamed_tokens`: see the view attempt_metrics. `empty`: 1 for a
response without text, reasoning or tool call. `number` is its place in the schedule. All *_ns are of one session's
monotonic clock.
"""

_REQUESTS_SQL = """
SELECT a.request_id, coalesce(t.session_id, a.session_id), a.phase,
       CASE WHEN p.request_id IS NOT NULL THEN 'response' WHEN g.request_id IS NOT NULL THEN 'failure'
            ELSE 'pending' END,
       CAST(substr(a.request_id, length(r.run_id) + 2) AS INTEGER), a.offset_ns, a.input_tokens, a.output_tokens,
       a.group_idx,
       (SELECT f.intended_ns FROM attempts x JOIN telemetry f USING (request_id, attempt_idx)
        WHERE x.request_id = a.request_id AND x.session_id = t.session_id ORDER BY x.attempt_idx LIMIT 1),
       m.limits_ns, m.start_ns, m.conn_reused, m.conn_ready_ns, m.body_sent_ns,
       ifnull(m.first_byte_kernel_ns, m.first_byte_ns), m.first_event_ns,
       d.first_text_ns, d.first_text_user_ns,
       m.first_text_coalesced, m.last_delta_ns, m.finish_ns, m.usage_ns, m.done_ns, m.end_ns, m.n_text_chunks,
       m.chunks, m.prompt_tokens, m.completion_tokens, m.cached_tokens, d.streamed_tokens,
       coalesce(t.error_type, g.reason), t.http_status,
       (SELECT count(*) FROM attempts n WHERE n.request_id = a.request_id),
       p.text = '' AND ifnull(p.reasoning, '') = '' AND m.first_tool_ns IS NULL
           AND ifnull(p.finish_reason, '') NOT IN ('tool_calls', 'function_call'),
       q.model, q.conversation_idx, q.turn_idx, q.think_ns, q.shared_tokens
FROM requests r
JOIN bench_arrivals a ON a.request_id = r.request_id
LEFT JOIN bench_requests q ON q.request_id = r.request_id
LEFT JOIN attempts t ON t.request_id = a.request_id
     AND t.attempt_idx = (SELECT max(n.attempt_idx) FROM attempts n WHERE n.request_id = a.request_id)
LEFT JOIN telemetry m ON m.request_id = t.request_id AND m.attempt_idx = t.attempt_idx
LEFT JOIN attempt_metrics d ON d.request_id = t.request_id AND d.attempt_idx = t.attempt_idx
LEFT JOIN responses p ON p.request_id = a.request_id
LEFT JOIN give_ups g ON g.request_id = a.request_id
WHERE r.run_id = ? AND (t.request_id IS NOT NULL OR g.reason = 'earlier_turn_failed') ORDER BY 5
"""

REPLIES: dict[str, Any] = {
    "kv_effective": pl.Float64,
    "source": pl.String,
    "prompt_tokens": pl.Int64,
    "token_len": pl.Int64,
    "context_tokens": pl.Int64,
    "compressible_tokens": pl.Int64,
    "kv_bytes": pl.Float64,
    "completion_tokens": pl.Int64,
    "n_compressions": pl.Float64,
}
_REPLIES_SQL = f"""
SELECT p.kv_effective, json_extract(p.kv_evidence_json, '$.source'), m.prompt_tokens, a.input_tokens, NULL,
       {json_count("p.usage_json", "$.kv.compressible_tokens")}, {json_count("p.usage_json", "$.kv.bytes")},
       m.completion_tokens, {json_count("p.kv_evidence_json", "$.n_compressions")}
FROM requests r
JOIN bench_arrivals a ON a.request_id = r.request_id AND a.phase = 'measured'
JOIN responses p ON p.request_id = r.request_id
LEFT JOIN telemetry m ON m.request_id = p.request_id AND m.attempt_idx = p.attempt_idx
WHERE r.run_id = ?
"""
_PREDICTED = "$.completion_tokens_details"
_DRAFTS_SQL = f"""
SELECT sum(coalesce({json_count("p.usage_json", "$.timings.draft_n")},
                    {json_count("p.usage_json", f"{_PREDICTED}.accepted_prediction_tokens")}
                    + {json_count("p.usage_json", f"{_PREDICTED}.rejected_prediction_tokens")})),
       sum(coalesce({json_count("p.usage_json", "$.timings.draft_n_accepted")},
                    {json_count("p.usage_json", f"{_PREDICTED}.accepted_prediction_tokens")}))
FROM requests r JOIN responses p USING (request_id) WHERE r.run_id = ?
"""


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """A session's work on a stage. Without an end (`closed` False) it was killed. *_ns: the session's own clock."""

    session_id: str
    start_ns: int
    started_at: str
    closed: bool
    measured_from_ns: int | None = None
    measured_to_ns: int | None = None
    drained_ns: int | None = None
    n_sent: int = 0
    n_late: int = 0
    late_max_ms: float = 0.0
    n_held: int = 0
    peak_in_flight: int = 0
    reason: str = "killed"
    stop_rule: str | None = None
    client: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PageReading:
    """One reading of the server's metrics page; `metrics` is empty where the reading failed."""

    session_id: str
    phase: str
    at_ns: int
    endpoint: str
    metrics: Json
    error: str | None


@dataclass(frozen=True, slots=True)
class StageFacts:
    """One load at one level and repeat: what was planned, and what its windows were."""

    run_id: str
    series: str
    stage_idx: int
    repeat_idx: int
    purpose: str
    load: str
    level: str | None
    loop: str
    arrival: str | None
    rate_per_s: float | None
    burstiness: float | None
    concurrency: int | None
    max_in_flight: int | None
    n_measured: int | None
    duration_s: float | None
    seed: int
    salted: bool
    workload: Json
    slo: dict[str, float]
    calibration: Json
    plan: Json
    model_name: str
    engine_name: str
    kv_budget: float
    is_full: bool
    n_owed: int  # measured requests that are planned, begun or not, and have no outcome
    windows: tuple[WindowFacts, ...]
    samples: tuple[PageReading, ...]

    @property
    def value(self) -> float:
        """Requests per second, or requests in flight."""
        return float(self.rate_per_s if self.rate_per_s is not None else self.concurrency or 0)

    @property
    def shape(self) -> LoadShape | None:
        """How the load changes as the stage runs; None: it doesn't."""
        kept = self.plan.get("shape")
        return None if kept is None else LoadShape.of_json(kept)

    @property
    def is_unloaded(self) -> bool:
        """Whether it is no load, but what answers under loads are compared with."""
        return self.purpose == "unloaded"

    @property
    def partial(self) -> bool:
        """Whether requests are owed that no stop rule excused."""
        excused = bool(self.windows) and self.windows[-1].reason == EndReason.STOP_RULE
        return (self.n_owed > 0 and not excused) or not self.windows


def stages(conn: sqlite3.Connection, exp_group_id: str, generation: int | None = None) -> list[StageFacts]:
    """Every stage of a group's newest generation, as planned. MissingPrerequisiteError: nothing was benched."""
    generation = newest_generation(conn, exp_group_id, generation)
    rows = conn.execute(
        "SELECT b.*, u.series, u.repeat_idx, u.model_name, u.engine_name, u.kv_budget, u.is_full, "
        "(SELECT max(count(*), ifnull(b.n_measured, 0)) - count(*) FILTER (WHERE EXISTS ("
        "  SELECT 1 FROM responses p WHERE p.request_id = r.request_id) "
        "  OR EXISTS (SELECT 1 FROM give_ups g WHERE g.request_id = r.request_id)) "
        " FROM requests r JOIN bench_arrivals a ON a.request_id = r.request_id "
        " WHERE r.run_id = b.run_id AND a.phase = 'measured') owed "
        "FROM bench_stages b JOIN runs u ON u.run_id = b.run_id WHERE u.exp_group_id = ? AND u.generation = ? "
        "ORDER BY b.stage_idx, u.repeat_idx",
        (exp_group_id, generation),
    )
    names = [column[0] for column in rows.description]
    stage_rows = [dict(zip(names, row, strict=True)) for row in rows]
    if not stage_rows:
        raise MissingPrerequisiteError(
            f"nothing was benched in group {exp_group_id!r}", do="Run `kvt bench -c CONFIG --rate 4` first."
        )
    return [_stage(conn, row) for row in stage_rows]


def requests(conn: sqlite3.Connection, run_id: str) -> pl.DataFrame:
    """Every request of a stage that was started, in the order of the schedule; columns: REQUESTS."""
    return read_frame(conn.execute(_REQUESTS_SQL, (run_id,)), REQUESTS)


def run_of(conn: sqlite3.Connection, run_id: str) -> Run:
    """The level of a stage as the analyzer knows runs."""
    names = [field.name for field in fields(Run)]
    row = conn.execute(f"SELECT {', '.join(names)} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    return replace(Run(*row), is_full=bool(row[names.index("is_full")]))


def replies(conn: sqlite3.Connection, run_id: str) -> pl.DataFrame:
    """What measured replies of a stage say of their budget; columns: REPLIES."""
    return read_frame(conn.execute(_REPLIES_SQL, (run_id,)), REPLIES).with_columns(is_failure=pl.lit(False))


def reply_drafts(conn: sqlite3.Connection, run_id: str) -> tuple[int, int]:
    """(drafted, accepted) tokens as the replies of a stage count them, warm-up included: llama.cpp's timings, or the
    prediction tokens of a usage object."""
    drafted, accepted = conn.execute(_DRAFTS_SQL, (run_id,)).fetchone()
    return int(drafted or 0), int(accepted or 0)


def reply_texts(conn: sqlite3.Connection, run_id: str) -> dict[str, str]:
    """The text of every reply of a stage, by request."""
    sql = "SELECT request_id, text FROM responses JOIN requests USING (request_id) WHERE run_id = ?"
    return dict(conn.execute(sql, (run_id,)).fetchall())


def commands(conn: sqlite3.Connection, exp_group_id: str, generation: int) -> list[str]:
    """The commands of a group as they were typed, each once."""
    rows = conn.execute(
        "SELECT command FROM sessions WHERE exp_group_id = ? AND generation = ? ORDER BY started_at",
        (exp_group_id, generation),
    )
    return list(dict.fromkeys(row[0] for row in rows))


def _stage(conn: sqlite3.Connection, row: Json) -> StageFacts:
    run_id = row["run_id"]
    same = (
        "run_id",
        "series",
        "stage_idx",
        "repeat_idx",
        "purpose",
        "load",
        "level",
        "loop",
        "arrival",
        "rate_per_s",
        "burstiness",
        "concurrency",
        "max_in_flight",
        "n_measured",
        "duration_s",
        "seed",
        "model_name",
        "engine_name",
        "kv_budget",
    )
    return StageFacts(
        **{name: row[name] for name in same},
        salted=row["salt"] is not None,
        workload=json.loads(row["workload_json"]),
        slo=json.loads(row["slo_json"]),
        calibration=json.loads(row["calibration_json"] or "{}"),
        plan=json.loads(row["plan_json"]),
        is_full=bool(row["is_full"]),
        n_owed=row["owed"],
        windows=_windows(conn, run_id),
        samples=_samples(conn, run_id),
    )


def _windows(conn: sqlite3.Connection, run_id: str) -> tuple[WindowFacts, ...]:
    rows = conn.execute(
        "SELECT w.session_id, w.start_ns, w.started_at, e.drained_ns IS NOT NULL, e.measured_from_ns, "
        "e.measured_to_ns, e.drained_ns, ifnull(e.n_sent, 0), ifnull(e.n_late, 0), ifnull(e.late_max_ms, 0.0), "
        "ifnull(e.n_held, 0), ifnull(e.peak_in_flight, 0), ifnull(e.reason, 'killed'), e.stop_rule, e.client_json "
        "FROM bench_windows w LEFT JOIN bench_window_ends e ON e.run_id = w.run_id AND e.session_id = w.session_id "
        "WHERE w.run_id = ? ORDER BY w.window_idx",
        (run_id,),
    )
    return tuple(WindowFacts(*(*row[:3], bool(row[3]), *row[4:14], json.loads(row[14] or "{}"))) for row in rows)


def _samples(conn: sqlite3.Connection, run_id: str) -> tuple[PageReading, ...]:
    rows = conn.execute(
        "SELECT session_id, phase, at_ns, endpoint, metrics_json, error FROM server_samples WHERE run_id = ? "
        "ORDER BY taken_at, n",
        (run_id,),
    )
    return tuple(PageReading(*(*row[:4], without_nan(json.loads(row[4] or "{}")), row[5])) for row in rows)
