"""A stage's figures from its facts, as far as the runner itself needs them: stop rules, searches, a short table.

To rules and searches failures count, and replies without a token: their latencies are infinite. In open loop times
count from the intended start. Intervals, and everything a report says, are the analyzer's.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvt_async.contract.bench_settings import slo_parts
from kvt_async.contract.formulas.chunk_encoding import decode_chunks
from kvt_async.contract.formulas.quantile import quantile
from kvt_async.store.reader import Reader

_SQL = """
SELECT a.session_id AS session, p.request_id IS NOT NULL AS ok, t.start_ns, t.end_ns, t.last_delta_ns,
       ifnull(t.first_byte_kernel_ns, t.first_byte_ns) AS first_byte_ns,
       d.first_text_ns AS first_ns, d.first_text_user_ns AS first_user_ns,
       CASE s.loop WHEN 'open' THEN  -- a closed loop's later turns have one too, of which no figure is made
       (SELECT u.intended_ns FROM telemetry u JOIN attempts c USING (request_id, attempt_idx)
        WHERE u.request_id = r.request_id AND c.session_id = a.session_id AND u.intended_ns IS NOT NULL
        ORDER BY u.attempt_idx DESC LIMIT 1) END AS intended_ns,
       ifnull(t.completion_tokens, t.n_text_chunks) AS tokens, ifnull(d.streamed_tokens, t.n_text_chunks) AS streamed,
       t.chunks,
       p.text = '' AND ifnull(p.reasoning, '') = '' AND t.first_tool_ns IS NULL
           AND ifnull(p.finish_reason, '') NOT IN ('tool_calls', 'function_call') AS empty
FROM requests r JOIN bench_arrivals b USING (request_id) JOIN bench_stages s USING (run_id)
LEFT JOIN responses p USING (request_id)
LEFT JOIN give_ups g USING (request_id)
LEFT JOIN attempts a ON a.request_id = r.request_id
     AND a.attempt_idx = (SELECT max(m.attempt_idx) FROM attempts m WHERE m.request_id = r.request_id)
LEFT JOIN telemetry t ON t.request_id = a.request_id AND t.attempt_idx = a.attempt_idx
LEFT JOIN attempt_metrics d ON d.request_id = a.request_id AND d.attempt_idx = a.attempt_idx
WHERE r.run_id = ? AND b.phase = 'measured' AND (p.request_id IS NOT NULL OR g.request_id IS NOT NULL)
"""


@dataclass(frozen=True)
class Figures:
    """Of one stage's measured requests that have an outcome; arrays are aligned, one element a request."""

    rate_per_s: float | None  # planned; None: closed loop
    session: NDArray[np.int64]
    ok: NDArray[np.bool_]
    begin_ns: NDArray[np.float64]  # intended in open loop, else started
    first_ns: NDArray[np.float64]  # by the kernel's stamp where there is one, as in every report
    first_byte_ns: NDArray[np.float64]
    end_ns: NDArray[np.float64]  # last text
    tokens: NDArray[np.float64]  # output
    streamed: NDArray[np.float64]  # of them, those that were sent and so have times
    chunks: list[bytes | None]
    first_user_ns: NDArray[np.float64] | None = None  # by our own stamp, as the last token has; None: the same
    empty: NDArray[np.bool_] | None = None  # answered without a token; None: none was

    @property
    def n(self) -> int:
        return len(self.ok)

    @cached_property
    def error_share(self) -> float:
        return float(1 - self.ok.mean()) if self.n else 0.0

    @cached_property
    def output_per_s(self) -> float:
        """Output tokens a second from the first request's start to the last one's end: what the calibration of this
        client goes by, whose null server is no slower at the edges. A server's are stage_throughput.py's."""
        tokens = seconds = 0.0
        for session in np.unique(self.session[self.ok]):
            mine = self.ok & (self.session == session)
            tokens += float(np.nansum(self.tokens[mine]))
            seconds += float(np.nanmax(self.end_ns[mine]) - np.nanmin(self.begin_ns[mine])) / 1e9
        return tokens / seconds if seconds > 0 else 0.0

    def value(self, objective: str, *, of_answered: bool = False) -> float:
        """'ttft_p99_ms' -> that statistic in that unit, failures infinite or, with `of_answered`, left out; NaN where
        nothing was measured."""
        metric, stat, unit = slo_parts(objective)
        seconds = self._seconds(metric)
        seconds = seconds[np.isfinite(seconds)] if of_answered else seconds
        if not len(seconds):
            return float("nan")
        if stat in ("mean", "max"):
            return float(seconds.mean() if stat == "mean" else seconds.max()) * unit
        return quantile(np.sort(seconds), int(stat[1:]) / 100) * unit

    def _seconds(self, metric: str) -> NDArray[np.float64]:
        seconds: NDArray[np.float64]
        if metric == "itl":
            gaps = [np.diff(sorted({at for at, _ in decode_chunks(blob)})) / 1e6 for blob in self.chunks if blob]
            return np.concatenate([*gaps, np.full(int((~self.ok).sum()), np.inf)])
        first_ns = self.first_ns if self.first_user_ns is None else self.first_user_ns
        with np.errstate(invalid="ignore", divide="ignore"):
            seconds = {
                "ttft": (self.first_ns - self.begin_ns) / 1e9,
                "ttfb": (self.first_byte_ns - self.begin_ns) / 1e9,
                "latency": (self.end_ns - self.begin_ns) / 1e9,
                "tpot": np.where(
                    (self.streamed > 1) & (self.end_ns > first_ns),  # one arrival shows no gap
                    (self.end_ns - first_ns) / 1e9 / (self.streamed - 1),
                    np.nan,
                ),
            }[metric]
        full = self.ok if self.empty is None or metric == "ttfb" else self.ok & ~self.empty
        seconds = np.where(full, seconds, np.inf)
        answer: NDArray[np.float64] = seconds[~np.isnan(seconds)]
        return answer


def stage_figures(reader: Reader, run_id: str, rate_per_s: float | None) -> Figures:
    """The figures of the stage as it is stored now."""
    rows = reader.rows(_SQL, run_id)
    names: dict[str, int] = {}

    def column(name: str) -> NDArray[np.float64]:
        return np.asarray([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)

    base = min((row["start_ns"] for row in rows if row["start_ns"] is not None), default=0)
    start, intended, last, end = (column(n) - base for n in ("start_ns", "intended_ns", "last_delta_ns", "end_ns"))
    return Figures(
        rate_per_s=rate_per_s,
        session=np.asarray([names.setdefault(row["session"] or "", len(names)) for row in rows], dtype=np.int64),
        ok=np.asarray([bool(row["ok"]) for row in rows], dtype=np.bool_),
        begin_ns=np.where(np.isnan(intended), start, intended),
        first_ns=column("first_ns") - base,
        first_user_ns=column("first_user_ns") - base,
        first_byte_ns=column("first_byte_ns") - base,
        end_ns=np.where(np.isnan(last), end, last),
        tokens=column("tokens"),
        streamed=column("streamed"),
        chunks=[row["chunks"] for row in rows],
        empty=np.asarray([bool(row["empty"]) for row in rows], dtype=np.bool_),
    )
