"""A benched group as the analyzer meets it: facts of a few stages, written by hand with times that are known."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvt_async.contract.formulas.chunk_encoding import encode_chunks
from kvt_async.contract.load import load_settings
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from tests.tables import insert, insert_run, insert_session

GROUP, WHEN = "bench", "2026-01-02T03:04:05.000Z"
MS = 1_000_000
START = 10**12  # of every stage, on the session's clock


@dataclass
class Sent:
    """One request: due, sent `late_ms` after, first text `ttft_ms` after that, then `tokens` chunks `itl_ms` apart."""

    due_ms: float
    ttft_ms: float = 100.0
    itl_ms: float = 10.0
    tokens: int = 11
    late_ms: float = 0.0
    failed: bool = False
    phase: str = "measured"
    cached: int | None = 0
    chunk_tokens: int = 1  # tokens to a chunk
    pending: bool = False  # planned, never sent
    empty: bool = False  # answered without a token
    one_piece: bool = False  # all tokens in one read
    input_got: int = 50  # prompt tokens by the server's count
    input_asked: int = 50
    output_asked: int | None = None  # None: as many as came


@dataclass
class Load:
    """A stage."""

    sent: Sequence[Sent]
    label: str = "rate 10/s"
    rate: float | None = 10.0
    concurrency: int | None = None
    repeat: int = 0
    level: str | None = None
    slo: dict[str, float] = field(default_factory=dict)
    error_ms: float = 0.5  # this client's own error
    before: Mapping[str, object] = field(default_factory=dict)  # the metrics page
    after: Mapping[str, object] = field(default_factory=dict)
    killed: bool = False  # its window has no end
    seed: int = 1


def steady(n: int, gap_ms: float = 100.0, **kind: object) -> list[Sent]:
    """`n` requests, one every gap_ms."""
    return [Sent(i * gap_ms, **kind) for i in range(n)]  # type: ignore[arg-type]


def write_bench(db: Path, loads: Sequence[Load]) -> sqlite3.Connection:
    """Make the database and return the writing connection."""
    conn = connect_for_writing(db)
    conn.execute("BEGIN")
    insert(
        conn,
        "experiments",
        exp_group_id=GROUP,
        generation=1,
        created_at=WHEN,
        contract_json="{}",
        contract_sha256="c" * 64,
    )
    insert_session(
        conn,
        session_id="s",
        exp_group_id=GROUP,
        started_at=WHEN,
        command="kvt bench -c bench",
    )
    insert(
        conn,
        "datasets",
        dataset_id="w",
        name="bench",
        task="synthetic",
        tokenizer_name="t",
        tokenizer_sha256="t" * 64,
        metric="none",
        prompt_json="{}",
        selection_json="{}",
    )
    for idx, load in enumerate(loads):
        _stage(conn, idx, load)
    conn.execute("COMMIT")
    return conn


def _stage(conn: sqlite3.Connection, idx: int, load: Load) -> None:
    run_id = f"run{idx}"
    series = f"{load.level}, {load.label}" if load.level else load.label
    insert_run(
        conn,
        run_id=run_id,
        exp_group_id=GROUP,
        dataset_id="w",
        series=series,
        repeat_idx=load.repeat,
        level_idx=idx,
        created_at=WHEN,
    )
    open_loop = load.rate is not None
    insert(
        conn,
        "bench_stages",
        run_id=run_id,
        stage_idx=idx,
        purpose="list",
        load=load.label,
        level=load.level,
        loop="open" if open_loop else "closed",
        arrival="constant" if open_loop else None,
        rate_per_s=load.rate,
        concurrency=load.concurrency,
        n_warm_up=sum(s.phase == "warm_up" for s in load.sent),
        n_measured=sum(s.phase == "measured" for s in load.sent),
        seed=load.seed,
        salt="x",
        workload_json='{"kind": "synthetic"}',
        slo_json=json.dumps(load.slo),
        plan_json="{}",
        created_at=WHEN,
    )
    insert(
        conn,
        "bench_windows",
        run_id=run_id,
        session_id="s",
        window_idx=0,
        start_ns=START,
        started_at=WHEN,
        n_planned=len(load.sent),
    )
    for number, sent in enumerate(load.sent):
        _request(conn, f"{run_id}:{number}", run_id, sent, open_loop=open_loop)
    measured = [s for s in load.sent if s.phase == "measured"]
    if not load.killed:
        signal = f"loop lag p99 {load.error_ms} ms"
        client = {"verdict": "client-clean", "error_bound_ms": load.error_ms, "signal": signal}
        ends = [s.due_ms + s.late_ms + s.ttft_ms + s.itl_ms * (s.tokens - 1) for s in load.sent if not s.pending]
        # closed loop: the first place that stays empty
        until = measured[-1].due_ms if open_loop else sorted(ends)[-(load.concurrency or 1)]
        insert(
            conn,
            "bench_window_ends",
            run_id=run_id,
            session_id="s",
            measured_from_ns=START + int(measured[0].due_ms * MS),
            measured_to_ns=START + int(until * MS),
            drained_ns=START + int(max(ends) * MS),
            n_sent=len(load.sent),
            n_measured=len(measured),
            n_late=0,
            late_max_ms=0.0,
            n_held=0,
            peak_in_flight=1,
            reason="finished",
            client_json=json.dumps(client),
            ended_at=WHEN,
        )
    for phase, page in (("before", load.before), ("after", load.after)):
        if page:
            insert(
                conn,
                "server_samples",
                session_id="s",
                run_id=run_id,
                phase=phase,
                at_ns=START,
                took_ms=1.0,
                taken_at=WHEN,
                endpoint="http://h/metrics",
                metrics_json=json.dumps(page),
            )


def _request(conn: sqlite3.Connection, request_id: str, run_id: str, sent: Sent, *, open_loop: bool) -> None:
    insert(
        conn,
        "requests",
        request_id=request_id,
        run_id=run_id,
        example_id=request_id,
        prompt_sha256="p",
        created_at=WHEN,
    )
    due = START + int(sent.due_ms * MS)
    insert(
        conn,
        "bench_arrivals",
        request_id=request_id,
        session_id="s",
        phase=sent.phase,
        offset_ns=due - START if open_loop else None,
        input_tokens=sent.input_asked,
        output_tokens=sent.tokens if sent.output_asked is None else sent.output_asked,
    )
    if sent.pending:
        return
    start = due + int(sent.late_ms * MS)
    first = start + int(sent.ttft_ms * MS)
    n_chunks = 1 + (sent.tokens - 1) // sent.chunk_tokens
    last = first + int((n_chunks - 1) * sent.itl_ms * MS)
    insert(
        conn,
        "attempts",
        request_id=request_id,
        attempt_idx=0,
        series_idx=0,
        session_id="s",
        started_at=WHEN,
        endpoint="http://h/v1",
        http_status=500 if sent.failed else 200,
        end_state="done",
        error_type="HttpError" if sent.failed else None,
        latency_s=(last - start) / 1e9,
    )
    if sent.one_piece:
        last = first
    step = 0.0 if sent.one_piece else sent.itl_ms
    offsets = [(int((sent.ttft_ms + i * step) * 1000), 4) for i in range(n_chunks)]
    marks = (
        {}
        if sent.failed
        else {
            "first_byte_ns": first,
            "first_event_ns": first,
            "first_content_ns": first,
            "last_delta_ns": last,
            "finish_ns": last + MS,
            "usage_ns": last + 2 * MS,
            "done_ns": last + 3 * MS,
            "n_text_chunks": n_chunks,
            "chunks": encode_chunks(offsets),
            "prompt_tokens": sent.input_got,
            "completion_tokens": sent.tokens,
            "cached_tokens": sent.cached,
        }
    )
    if sent.empty:
        names = ("first_byte_ns", "first_event_ns", "finish_ns", "usage_ns", "done_ns", "prompt_tokens")
        marks = {name: marks[name] for name in names} | {"n_text_chunks": 0, "completion_tokens": 0}
    marks |= {"intended_ns": due if open_loop else None, "limits_ns": start - MS // 2, "start_ns": start}
    insert(
        conn, "telemetry", request_id=request_id, attempt_idx=0, end_ns=last + 4 * MS, stamp_source="transport", **marks
    )
    if sent.failed:
        insert(conn, "give_ups", request_id=request_id, series_idx=0, reason="attempts_exhausted", created_at=WHEN)
    else:
        insert(
            conn,
            "responses",
            request_id=request_id,
            attempt_idx=0,
            text="" if sent.empty else "t",
            finish_reason="stop",
            created_at=WHEN,
        )


def settings_of(folder: Path, *overrides: str) -> Settings:
    return load_settings(None, [
        f"experiment.exp_group_id={GROUP}", "dataset.name=jsonl", "dataset.task=t", "dataset.path=x.jsonl",
        f"output.runs_dir={folder}/runs", *overrides,
    ], environ={})  # fmt: skip


def group(folder: Path, *loads: Load, charts: bool = False) -> Settings:
    (folder / f"runs/{GROUP}").mkdir(parents=True)
    write_bench(folder / f"runs/{GROUP}/kv_transition.sqlite", loads).close()
    return settings_of(folder, f"analysis.charts={str(charts).lower()}")
