"""Counts of every run: what is answered, failed, pending or refused."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from analyzer.read import kept_counts
from analyzer.read.group_connection import GroupConnection, is_whole, parts
from analyzer.read.group_tasks import group_tasks
from analyzer.read.runs import runs
from kvt_async.contract.errors import ErrorType
from kvt_async.contract.labels import request_ids_of
from kvt_async.contract.shards.group_databases import GroupDatabase

_REFUSED_STATUS = (401, 402, 403, 407)
_FIRST = "WHERE requests.run_id = ? AND sample_idx < ?"
_IS_AMONG = "SELECT count(*) FROM requests WHERE request_id = ? AND sample_idx < ?"


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

    @classmethod
    def together(cls, parts: Sequence["RunCounts"]) -> "RunCounts":
        """Counts of one run in several databases."""
        sums = {field.name: sum(getattr(part, field.name) for part in parts) for field in fields(cls)}
        return cls(**sums | {"planned": max(part.planned for part in parts)})

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


NOTHING = RunCounts(0, 0, 0, 0, 0, 0)


def holders(
    members: Sequence[GroupDatabase], counts: Sequence[Mapping[str, RunCounts]], at: int, run_id: str
) -> tuple[int, ...]:
    """Of a group's databases, with their counts, the others that may hold this run's answers to the examples of the one
    `at`.

    Shards of one n have whole contexts, and no other shard of that n has the same: one that has the run itself need
    look no further among them.
    """

    def has(i: int) -> bool:
        return counts[i].get(run_id, NOTHING).requests > 0

    own = members[at].part
    alike = own[1] if own is not None and has(at) else None
    return tuple(
        i
        for i, other in enumerate(members)
        if i != at and has(i) and (alike is None or other.part is None or other.part[1] != alike)
    )


def run_counts(
    conn: sqlite3.Connection,
    exp_group_id: str,
    generation: int,
    samples: Mapping[str, int] | None = None,
    *,
    kept: bool = True,
) -> dict[str, RunCounts]:
    """Counts of every run of one generation, by run_id.

    samples: by dataset_id, how many answers of each example count; the first so many. None: all that were planned.
    kept: what was counted of the same facts before is not counted again.
    """
    if isinstance(conn, GroupConnection):
        return _of_parts(conn, exp_group_id, generation, samples, kept=kept)
    planned: dict[str, int] = {task.dataset_id: task.samples for task in group_tasks(conn, exp_group_id, generation)}
    counted = planned | dict(samples or {})
    if kept and is_whole(conn) and all(counted[dataset_id] == number for dataset_id, number in planned.items()):
        stored = kept_counts.read_kept(conn, exp_group_id, generation, kept_counts.COUNTS)
        if stored is not None:
            return _with_scores(conn, exp_group_id, generation, stored)
    where = "WHERE u.exp_group_id = ? AND u.generation = ?"
    args = (exp_group_id, generation)
    entries: dict[str, int] = dict(
        conn.execute(
            "SELECT dataset_id, count(*) FROM manifest_entries WHERE dataset_id IN "
            f"(SELECT u.dataset_id FROM runs u {where}) GROUP BY 1",
            args,
        ).fetchall()
    )
    failed: dict[str, int] = dict(  # +: grouped after, not along the index of all requests: failures are few
        conn.execute("SELECT +run_id, count(*) FROM failures GROUP BY 1").fetchall()
    )
    open_again: dict[str, list[str]] = defaultdict(list)
    for request, run_id in (refused(conn) if failed else {}).items():
        open_again[run_id].append(request)
    tries: dict[str, int] = dict(
        conn.execute(
            "SELECT +r.run_id, count(*) FROM try_series t JOIN requests r ON r.request_id = t.request_id GROUP BY 1"
        ).fetchall()
    )
    result = {}
    for run in runs(conn, exp_group_id, generation):
        answers = counted[run.dataset_id]
        first = answers if answers < planned[run.dataset_id] else None
        requests, responses, scores = counts(conn, run.run_id, first)
        failures, again = failed.get(run.run_id, 0), len(open_again[run.run_id])
        if first is not None:
            failures = _count(
                conn, f"SELECT count(*) FROM requests JOIN failures USING (request_id) {_FIRST}", run.run_id, first
            )
            again = sum(_count(conn, _IS_AMONG, request, first) for request in open_again[run.run_id])
        result[run.run_id] = RunCounts(
            planned=entries.get(run.dataset_id, 0) * answers,
            requests=requests,
            responses=responses,
            failures=failures - again,
            try_series=tries.get(run.run_id, 0),
            scores=scores,
            refused=again,
        )
    return result


def _of_parts(
    conn: GroupConnection, exp_group_id: str, generation: int, samples: Mapping[str, int] | None, *, kept: bool
) -> dict[str, RunCounts]:
    """Counts of a group in several databases: their sums. Each database is of the whole plan, as far as it knows it."""
    of_parts = [run_counts(part, exp_group_id, generation, samples, kept=kept) for part in conn.parts]
    return {
        run.run_id: RunCounts.together([counts.get(run.run_id, NOTHING) for counts in of_parts])
        for run in runs(conn, exp_group_id, generation)
    }


def counts_to_keep(counts: Mapping[str, RunCounts]) -> dict[str, Any]:
    """What kept_counts keeps of them: all but the scores, which come and go."""
    return {"runs": {run_id: asdict(replace(count, scores=0)) for run_id, count in counts.items()}}


def _with_scores(
    conn: sqlite3.Connection, exp_group_id: str, generation: int, stored: Mapping[str, Any]
) -> dict[str, RunCounts]:
    """Counts that were kept, and today's number of scores."""
    written = kept_counts.scores_written(conn, exp_group_id, generation)
    return {
        run_id: RunCounts(**count | {"scores": written[run_id] if run_id in written else counts(conn, run_id)[2]})
        for run_id, count in stored["runs"].items()
    }


def refused(conn: sqlite3.Connection, run_id: str | None = None) -> dict[str, str]:
    """Requests (of one run) that were given up for a key, a quota or a right that was gone, with their run.

    Such a refusal says nothing about the request, so it is pending and no failure, unless the server answered another
    one of the same session that was sent later: then it was refused on its own account.
    """
    if isinstance(conn, GroupConnection):  # a session is in one database
        return {request: run for part in conn.parts for request, run in refused(part, run_id).items()}
    statuses = ", ".join("?" * len(_REFUSED_STATUS))
    of_run, key = ("", ()) if run_id is None else ("AND f.run_id = ? ", (run_id,))
    is_refusal = f"(f.http_status IN ({statuses}) OR f.error_type = ?) {of_run}"
    given = (*_REFUSED_STATUS, ErrorType.QUOTA, *key)
    if not conn.execute(f"SELECT 1 FROM failures f WHERE {is_refusal} LIMIT 1", given).fetchone():
        return {}  # as nearly always, and found along the run's own requests
    candidates = conn.execute(
        "SELECT f.request_id, f.run_id, a.session_id, a.endpoint, max(a.started_at) FROM failures f "
        "JOIN attempts a ON a.request_id = f.request_id "
        f"WHERE {is_refusal} GROUP BY f.request_id",
        given,
    ).fetchall()
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


def counts(conn: sqlite3.Connection, run_id: str, first: int | None = None) -> tuple[int, int, int]:
    """Requests, responses and scores of one run; with `first`, of so many answers of each example.

    A request's id is its run's id, a colon and a number, so a run's rows are a range of the primary keys: counting it
    touches no row. Where ids look otherwise, they are looked up one by one.
    """
    if isinstance(conn, GroupConnection):
        of_parts = zip(*(counts(part, run_id, first) for part in parts(conn)), strict=True)
        requests, responses, scores = (sum(column) for column in of_parts)
        return requests, responses, scores
    if first is not None:
        return (
            _count(conn, f"SELECT count(*) FROM requests {_FIRST}", run_id, first),
            _count(conn, f"SELECT count(*) FROM requests JOIN responses USING (request_id) {_FIRST}", run_id, first),
            _count(conn, f"SELECT count(*) FROM requests JOIN scores USING (request_id) {_FIRST}", run_id, first),
        )
    requests = _count(conn, "SELECT count(*) FROM requests WHERE run_id = ?", run_id)
    key_range = request_ids_of(run_id)
    if requests == _count(conn, "SELECT count(*) FROM requests WHERE request_id >= ? AND request_id < ?", *key_range):
        responses, scores = (
            _count(conn, f"SELECT count(*) FROM {table} WHERE request_id >= ? AND request_id < ?", *key_range)
            for table in ("responses", "scores")
        )
    else:
        responses, scores = (
            _count(conn, f"SELECT count(*) FROM requests JOIN {table} USING (request_id) WHERE run_id = ?", run_id)
            for table in ("responses", "scores")
        )
    return requests, responses, scores


def _count(conn: sqlite3.Connection, sql: str, *values: str | int) -> int:
    return int(conn.execute(sql, values).fetchone()[0])
