"""How much a stage gave per second, for stop rules and searches: the analyzer's figures from the same facts."""

from typing import Any

import numpy as np

from kvt_async.bench.load_steps import Load
from kvt_async.contract.formulas.conversation_lives import window_lives
from kvt_async.contract.formulas.open_loop_throughput import WHOLE, of_window
from kvt_async.contract.formulas.request_lives import Floats
from kvt_async.contract.formulas.throughput import SHAPED, Throughput, nothing, together
from kvt_async.records import Json
from kvt_async.store.reader import Reader

_WINDOWS = """
SELECT w.session_id, w.start_ns, e.measured_to_ns, e.reason FROM bench_windows w
LEFT JOIN bench_window_ends e ON e.run_id = w.run_id AND e.session_id = w.session_id
WHERE w.run_id = ? ORDER BY w.window_idx
"""
_REQUESTS = """
SELECT b.phase = 'measured' AS measured, p.request_id IS NOT NULL AS ok,
       (SELECT u.intended_ns FROM attempts c JOIN telemetry u USING (request_id, attempt_idx)
        WHERE c.request_id = r.request_id AND c.session_id = a.session_id ORDER BY c.attempt_idx LIMIT 1) AS intended,
       t.start_ns AS start, t.end_ns AS "end", ifnull(t.last_delta_ns, t.end_ns) AS finished,
       d.first_text_user_ns AS first, t.last_delta_ns AS last,
       ifnull(t.prompt_tokens, b.input_tokens) AS input_tokens,
       CASE WHEN p.request_id IS NULL THEN b.output_tokens
            ELSE coalesce(t.completion_tokens, t.n_text_chunks, b.output_tokens) END AS output_tokens, t.chunks,
       q.conversation_idx AS conversation, q.turn_idx AS turn, q.think_ns / 1e9 AS think
FROM requests r JOIN bench_arrivals b USING (request_id) LEFT JOIN bench_requests q USING (request_id)
JOIN attempts a ON a.request_id = r.request_id
     AND a.attempt_idx = (SELECT max(m.attempt_idx) FROM attempts m WHERE m.request_id = r.request_id)
JOIN telemetry t ON t.request_id = a.request_id AND t.attempt_idx = a.attempt_idx
LEFT JOIN first_text d ON d.request_id = a.request_id AND d.attempt_idx = a.attempt_idx
LEFT JOIN responses p ON p.request_id = r.request_id
WHERE r.run_id = ? AND a.session_id = ?
      AND (p.request_id IS NOT NULL OR EXISTS (SELECT 1 FROM give_ups g WHERE g.request_id = r.request_id))
"""
_TURNS_SEEN = """
SELECT q.conversation_idx, max(q.turn_idx) + 1 FROM bench_requests q JOIN requests r USING (request_id)
WHERE r.run_id = ? AND q.conversation_idx IS NOT NULL
      AND EXISTS (SELECT 1 FROM attempts a WHERE a.request_id = q.request_id) GROUP BY 1
"""
_COLUMNS = ("ok", "measured", "input_tokens", "output_tokens", "conversation", "turn", "think")
_INSTANTS = ("intended", "start", "end", "finished", "first", "last")


def stage_throughput(reader: Reader, run_id: str, load: Load, newest: Json | None = None) -> Throughput:
    """The throughput of the stage as it is stored now; `newest`: the end of its last window where that isn't stored
    yet."""
    if load.shape is not None:
        return nothing(SHAPED, None)
    parts = []
    for window in reader.rows(_WINDOWS, run_id):
        session, until, reason = window["session_id"], window["measured_to_ns"], window["reason"]
        if newest is not None and newest["session_id"] == session:
            until, reason = newest["measured_to_ns"], newest["reason"]
        rows = reader.rows(_REQUESTS, run_id, session)

        def column(name: str, rows: list[Any] = rows) -> Floats:
            return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)

        columns = {name: (column(name) - window["start_ns"]) / 1e9 for name in _INSTANTS}
        columns |= {name: column(name) for name in _COLUMNS}
        intended = columns.pop("intended")
        columns["begin"] = np.where(np.isnan(intended), columns["start"], intended)
        until_s = None if until is None else (until - window["start_ns"]) / 1e9
        seen = None if reason in WHOLE else {row[0]: row[1] for row in reader.rows(_TURNS_SEEN, run_id)}
        lives = window_lives(columns, [row["chunks"] for row in rows], until_s, seen)
        if lives.n:
            parts.append(of_window(lives, load.concurrency, until_s, whole=reason in WHOLE))
    return together(parts) if parts else nothing("nothing was sent", None)
