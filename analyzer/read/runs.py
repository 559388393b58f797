"""Facts -> frames: what was run. Single requests: outcomes.py, derived rows: store/derived_rows.py; no SQL elsewhere.

Readers take a connection inside `snapshot`, so that one stage sees one state of the facts, however long it takes and
whatever a running sweep adds meanwhile. Frames are read run by run, in chunks, so memory does not grow with the
number of runs.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import polars as pl

from analyzer.read.row_portions import ROWS
from analyzer.stats.sample_layout import Layout
from kvt_async.contract.errors import ErrorType, MissingPrerequisiteError
from kvt_async.contract.labels import request_ids_of
from kvt_async.contract.schema import connect_for_reading, missing_tables
from kvt_async.contract.settings_kv import cuts_prompts, is_label

_REFUSED_STATUS = (401, 402, 403, 407)


@dataclass(frozen=True, slots=True)
class Run:
    """A row of `runs`: one level (a series at one budget) and repeat."""

    run_id: str
    dataset_id: str
    series: str
    kv_policy: str
    kv_budget: float
    kv_unit: str
    kv_mode: str
    kv_apply: str
    is_full: bool
    repeat_idx: int
    level_idx: int
    model_name: str = ""
    base_url: str = ""
    engine_name: str = ""
    kv_params_json: str = "{}"

    @property
    def is_baseline(self) -> bool:
        return self.is_full and self.repeat_idx == 0

    @property
    def cuts_prompts(self) -> bool:
        """Whether its prompts were cut before they were sent, in place of a cache."""
        return cuts_prompts(self.kv_policy)

    @property
    def is_label(self) -> bool:
        """Whether the server was told nothing of its budget, which is a label alone."""
        return is_label(self.kv_apply) and not self.cuts_prompts


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Counts of one run; pending = planned but neither answered nor failed."""

    planned: int
    requests: int
    responses: int
    failures: int
    try_series: int
    scores: int
    refused: int = 0  # of the pending: given up for a refusal that says nothing about the request

    @property
    def finished(self) -> int:
        return self.responses + self.failures

    @property
    def total(self) -> int:
        """Requests of the run, those not queued yet among them."""
        return max(self.planned, self.requests)

    @property
    def pending(self) -> int:
        return self.total - self.finished


@dataclass(frozen=True, slots=True)
class Dataset:
    dataset_id: str
    name: str
    task: str
    tokenizer_name: str
    metric: str
    bins: dict[int, tuple[int, int]]  # bin_idx -> (lo_tokens, hi_tokens)
    strategy: str  # how examples were selected
    version: int  # of the manifest


@contextmanager
def snapshot(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the same database, held at one state of the facts."""
    reader = connect_for_reading(path_of(conn))
    try:
        yield held(reader)
    finally:
        reader.close()


def held(reader: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, held at one state of the facts. MissingPrerequisiteError where tables are missing."""
    missing = missing_tables(reader)
    if missing:
        raise MissingPrerequisiteError(
            f"this database lacks the tables {', '.join(missing)}",
            where=str(path_of(reader)),
            do="Run `kvt prepare -c CONFIG` and `kvt sweep -c CONFIG` with this version of kvt.",
        )
    reader.execute("PRAGMA cache_size=-65536")  # 64 MB: rows are looked up by key in four tables at once
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot starts with the first read
    return reader


def path_of(conn: sqlite3.Connection) -> Path:
    """The file that a connection has open."""
    return Path(next(row[2] for row in conn.execute("PRAGMA database_list") if row[1] == "main"))


def newest_group(conn: sqlite3.Connection) -> tuple[str, int, str]:
    """exp_group_id, generation and contract_json of the generation created last. MissingPrerequisiteError: none."""
    row = conn.execute(
        "SELECT exp_group_id, generation, contract_json FROM experiments ORDER BY created_at DESC, rowid DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise MissingPrerequisiteError("nothing was run in this database", do="Run `kvt sweep -c CONFIG` first.")
    return row[0], row[1], row[2]


def evidence(conn: sqlite3.Connection) -> dict[str, str]:
    """Stored evidence status of every run that was analysed."""
    return dict(conn.execute("SELECT run_id, status FROM run_evidence").fetchall())


def scorer_versions(conn: sqlite3.Connection) -> set[str]:
    return {row[0] for row in conn.execute("SELECT DISTINCT scorer_version FROM scores")}


def analysed_version(conn: sqlite3.Connection, exp_group_id: str) -> int:
    """Version of the manifest that this group was last analysed with; 0: not analysed."""
    row = conn.execute(
        "SELECT max(m.version) FROM runs u JOIN manifests m ON m.dataset_id = u.dataset_id "
        "JOIN bin_stats b ON b.run_id = u.run_id AND b.bin_idx = -1 "
        "WHERE u.exp_group_id = ? AND u.is_full AND b.n >= m.n_entries",
        (exp_group_id,),
    ).fetchone()
    return row[0] or 0


def newest_generation(conn: sqlite3.Connection, exp_group_id: str, generation: int | None = None) -> int:
    """The generation asked for, or the newest. MissingPrerequisiteError when the group has no runs (of it) here."""
    rows = conn.execute("SELECT generation FROM runs WHERE exp_group_id = ? GROUP BY 1", (exp_group_id,)).fetchall()
    known = sorted(row[0] for row in rows)
    if known and (generation is None or generation in known):
        return int(known[-1] if generation is None else generation)
    groups = [row[0] for row in conn.execute("SELECT DISTINCT exp_group_id FROM runs ORDER BY 1")]
    what = f"experiment group {exp_group_id!r} has no runs here"
    if known:
        what = f"experiment group {exp_group_id!r} has no generation {generation}; there are {known}"
    raise MissingPrerequisiteError(
        what + (f"; this database holds {', '.join(groups)}" if groups and not known else ""),
        do="Run `kvt sweep -c CONFIG` first.",
    )


def runs(conn: sqlite3.Connection, exp_group_id: str, generation: int) -> list[Run]:
    """All runs of one generation, in the order of the config, repeats last."""
    rows = conn.execute(
        f"SELECT {', '.join(field.name for field in fields(Run))} FROM runs WHERE exp_group_id = ? AND generation = ? "
        "ORDER BY repeat_idx, level_idx, series, kv_budget DESC, run_id",
        (exp_group_id, generation),
    )
    return [replace(run, is_full=bool(run.is_full)) for run in (Run(*row) for row in rows)]


def benched(conn: sqlite3.Connection, exp_group_id: str) -> bool:
    """Whether the group's runs are stages of `kvt bench`."""
    there = conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'bench_stages'").fetchone()
    stage = "SELECT 1 FROM bench_stages JOIN runs USING (run_id) WHERE exp_group_id = ? LIMIT 1"
    return bool(there and conn.execute(stage, (exp_group_id,)).fetchone())


def find_run(all_runs: Sequence[Run], run_id: str) -> Run:
    for run in all_runs:
        if run.run_id == run_id:
            return run
    raise MissingPrerequisiteError(
        f"there is no run {run_id!r} in this group", do=f"Runs: {', '.join(run.run_id for run in all_runs)}"
    )


def progress(conn: sqlite3.Connection, exp_group_id: str, generation: int) -> dict[str, RunCounts]:
    """Counts of every run of one generation, by run_id."""
    where = "WHERE u.exp_group_id = ? AND u.generation = ?"
    args = (exp_group_id, generation)
    planned: dict[str, int] = dict(
        conn.execute(
            "SELECT u.run_id, m.n FROM runs u "
            "JOIN (SELECT dataset_id, count(*) AS n FROM manifest_entries GROUP BY 1) m "
            f"ON m.dataset_id = u.dataset_id {where}",
            args,
        ).fetchall()
    )
    failed: dict[str, int] = dict(  # +: grouped after, not along the index of all requests: failures are few
        conn.execute("SELECT +run_id, count(*) FROM failures GROUP BY 1").fetchall()
    )
    open_again = Counter(refused(conn).values()) if failed else Counter()
    tries: dict[str, int] = dict(
        conn.execute(
            "SELECT r.run_id, count(*) FROM try_series t JOIN requests r ON r.request_id = t.request_id GROUP BY 1"
        ).fetchall()
    )
    result = {}
    for run in runs(conn, exp_group_id, generation):
        requests, responses, scores = counts(conn, run.run_id)
        result[run.run_id] = RunCounts(
            planned.get(run.run_id, 0),
            requests,
            responses,
            failed.get(run.run_id, 0) - open_again[run.run_id],
            tries.get(run.run_id, 0),
            scores,
            open_again[run.run_id],
        )
    return result


def refused(conn: sqlite3.Connection, run_id: str | None = None) -> dict[str, str]:
    """Requests (of one run) that were given up for a key, a quota or a right that was gone, with their run.

    Such a refusal says nothing about the request, so it is pending and no failure, unless the server answered another
    one of the same session that was sent later: then it was refused on its own account.
    """
    candidates = conn.execute(
        "SELECT f.request_id, f.run_id, a.session_id, a.endpoint, max(a.started_at) FROM failures f "
        "JOIN attempts a ON a.request_id = f.request_id "
        f"WHERE (f.http_status IN ({_marks(_REFUSED_STATUS)}) OR f.error_type = ?) AND (? IS NULL OR f.run_id = ?) "
        "GROUP BY f.request_id",
        (*_REFUSED_STATUS, ErrorType.QUOTA, run_id, run_id),
    ).fetchall()
    if not candidates:
        return {}
    answered: dict[tuple[str, str], str] = {
        (session, endpoint): started
        for session, endpoint, started in conn.execute(
            "SELECT session_id, endpoint, max(started_at) FROM attempts WHERE error_type IS NULL GROUP BY 1, 2"
        )
    }
    return {
        request: run
        for request, run, session, endpoint, started in candidates
        if answered.get((session, endpoint), "") <= started
    }


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def counts(conn: sqlite3.Connection, run_id: str) -> tuple[int, int, int]:
    """Requests, responses and scores of one run.

    A request's id is its run's id, a colon and a number, so a run's rows are a range of the primary keys: counting it
    touches no row. Where ids look otherwise, they are looked up one by one.
    """
    requests = _one(conn, "SELECT count(*) FROM requests WHERE run_id = ?", run_id)
    key_range = request_ids_of(run_id)
    if requests == _one(conn, "SELECT count(*) FROM requests WHERE request_id >= ? AND request_id < ?", *key_range):
        responses, scores = (
            _one(conn, f"SELECT count(*) FROM {table} WHERE request_id >= ? AND request_id < ?", *key_range)
            for table in ("responses", "scores")
        )
    else:
        responses, scores = (
            _one(conn, f"SELECT count(*) FROM requests JOIN {table} USING (request_id) WHERE run_id = ?", run_id)
            for table in ("responses", "scores")
        )
    return requests, responses, scores


def _one(conn: sqlite3.Connection, sql: str, *values: str) -> int:
    return int(conn.execute(sql, values).fetchone()[0])


def dataset(conn: sqlite3.Connection, dataset_id: str) -> Dataset:
    row = conn.execute(
        "SELECT dataset_id, name, task, tokenizer_name, metric, json_extract(selection_json, '$.strategy'), "
        "(SELECT max(version) FROM manifests m WHERE m.dataset_id = d.dataset_id) FROM datasets d WHERE dataset_id = ?",
        (dataset_id,),
    ).fetchone()
    limits = conn.execute(
        "SELECT bin_idx, lo_tokens, hi_tokens FROM bins WHERE dataset_id = ? ORDER BY 1", (dataset_id,)
    )
    tokens = {b: (lo, hi) for b, lo, hi in limits}
    return Dataset(row[0], row[1], row[2], row[3], row[4], tokens, row[5] or "", row[6] or 1)


def has_own_tokenizer(conn: sqlite3.Connection, dataset_id: str) -> bool:
    """Whether prompts were counted with a tokenizer, which the server is taken to share, rather than estimated."""
    row = conn.execute("SELECT tokenizer_name FROM datasets WHERE dataset_id = ?", (dataset_id,)).fetchone()
    return not str(row[0]).startswith("approx:")


def entries(conn: sqlite3.Connection, dataset_id: str) -> pl.DataFrame:
    """One row per manifest entry, in order; `entry` numbers them, `cluster` numbers their contexts."""
    frame = read_frame(
        conn.execute(
            "SELECT e.example_id, e.bin_idx, e.token_len, e.context_tokens, x.context_sha256 FROM manifest_entries e "
            "JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id "
            "WHERE e.dataset_id = ? ORDER BY e.seq",
            (dataset_id,),
        ),
        {
            "example_id": pl.String,
            "bin_idx": pl.Int64,
            "token_len": pl.Int64,
            "context_tokens": pl.Int64,
            "context_sha256": pl.String,
        },
    )
    return frame.with_row_index("entry").select(
        "entry",
        "example_id",
        "bin_idx",
        "token_len",
        "context_tokens",
        cluster=(pl.col("context_sha256").rank("dense") - 1).cast(pl.Int64),
    )


def layout(conn: sqlite3.Connection) -> Layout | None:
    """How the examples of the manifest that was stored last lie in contexts and bins; None without one."""
    row = conn.execute("SELECT dataset_id FROM manifests ORDER BY created_at DESC, rowid DESC LIMIT 1").fetchone()
    if row is None:
        return None
    frame = entries(conn, row[0])
    return Layout.of(frame["cluster"].to_numpy(), frame["bin_idx"].to_numpy()) if frame.height else None


def golds(conn: sqlite3.Connection, dataset_id: str, *, with_classes: bool) -> pl.DataFrame:
    """example_id, token_len, golds (list of text) and, if asked, classes_json (of meta.all_classes) of every entry."""
    classes = ", json_quote(json_extract(x.meta_json, '$.all_classes'))" if with_classes else ""
    columns = "e.example_id, e.token_len, x.answers_json" + classes
    schema: dict[str, Any] = {"example_id": pl.String, "token_len": pl.Int64, "answers_json": pl.String}
    cursor = conn.execute(
        f"SELECT {columns} FROM manifest_entries e "
        "JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id WHERE e.dataset_id = ?",
        (dataset_id,),
    )
    frame = read_frame(cursor, schema | ({"classes_json": pl.Categorical} if with_classes else {}))
    parsed = [[str(gold) for gold in json.loads(text)] for text in frame["answers_json"].to_list()]
    return frame.drop("answers_json").with_columns(pl.Series("golds", parsed, dtype=pl.List(pl.String)))


def read_frame(cursor: sqlite3.Cursor, schema: dict[str, Any]) -> pl.DataFrame:
    parts = [pl.DataFrame(schema=schema)]
    while rows := cursor.fetchmany(ROWS):
        parts.append(pl.DataFrame(rows, schema=schema, orient="row", strict=False))
    return pl.concat(parts)
