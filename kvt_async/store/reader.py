"""What the runner reads back: what is answered, what to send next, who was killed. Short reads, own connection.

Every call is one or a few statements fetched to their end, so no read transaction stays open and the WAL can be reset.
Calls are made from worker threads, one at a time.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.formulas.conversation import unit_of
from kvt_async.contract.formulas.prompt_text import context_parts, tool_fields, turn_prefix
from kvt_async.contract.labels import entry_of, request_ids_of
from kvt_async.contract.schema import connect_for_reading
from kvt_async.records import Example, Json
from kvt_async.store.facts_beside import read_together

MAPPED_BYTES = 1 << 30


class Entry(NamedTuple):
    """A manifest entry with its example, as stored; what only some readers want is parsed when asked for."""

    seq: int
    token_len: int
    context_tokens: int
    prompt_sha256: str
    example_id: str
    question: str
    context: str
    answers_json: str = "[]"
    meta_json: str = "{}"

    @property
    def turns(self) -> list[list[str]]:
        """Earlier chat turns [[question, answer], ...]."""
        if '"turns"' not in self.meta_json:
            return []
        return orjson.loads(self.meta_json).get("turns") or []

    @property
    def parts(self) -> list[tuple[str, int]]:
        """(role, characters) of the messages that the context consists of; empty: it is one text."""
        if '"context_messages"' not in self.meta_json:
            return []
        return context_parts(orjson.loads(self.meta_json), self.context)

    def turn_prefix(self, place: str | None) -> str:
        """What the answer begins with where prompt.answer_prefix is `place`; empty: nothing is given."""
        return turn_prefix(place, orjson.loads(self.meta_json)) if place and '"answer_prefix"' in self.meta_json else ""

    @property
    def tool_fields(self) -> Json:
        """The fields of a chat request that offer tools; empty: it offers none."""
        return tool_fields(orjson.loads(self.meta_json)) if '"tools"' in self.meta_json else {}

    @property
    def example(self) -> Example:
        answers, meta = orjson.loads(self.answers_json), orjson.loads(self.meta_json)
        return Example(self.example_id, self.question, self.context, tuple(answers), meta)


@dataclass(frozen=True, slots=True)
class Past:
    """What is stored of a request that is still to be sent."""

    exists: bool  # its requests row is there
    attempts: int  # attempts stored: the next attempt_idx


NEW = Past(False, 0)
Reply = tuple[str, str | None, str | None, str | None]  # text, reasoning, tool_calls_json, finish_reason


_MOST_SAMPLES = """SELECT max(p.samples) FROM runs u
    JOIN sample_plans p USING (exp_group_id, generation, dataset_id) WHERE u.run_id = ?"""
_COUNTS_OF_SAMPLES = """SELECT count(*) AS requests, count(p.request_id) AS responses, count(f.request_id) AS failures
    FROM requests r LEFT JOIN responses p USING (request_id) LEFT JOIN failures f ON f.request_id = r.request_id
    WHERE r.run_id = ? AND r.sample_idx < ?"""


class Reader:
    """Read-only view of the runner's database. `beside`: databases whose facts are read as if they were in it; those
    that are there already count once."""

    def __init__(self, db: Path, beside: Sequence[Path] = ()) -> None:
        self.db = db
        self._conn = connect_for_reading(db, check_same_thread=False)
        if beside:
            read_together(self._conn, beside)
        self._conn.row_factory = sqlite3.Row
        self._mutex = threading.Lock()

    def close(self) -> None:
        with self._mutex:
            self._conn.close()

    def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._mutex:
            return self._conn.execute(sql, values).fetchall()

    def value(self, sql: str, *values: object) -> Any:
        rows = self.rows(sql, *values)
        return rows[0][0] if rows else None

    def dataset(self, dataset_id: str) -> sqlite3.Row | None:
        """The dataset's row; None where it was never stored."""
        rows = self.rows("SELECT * FROM datasets WHERE dataset_id = ?", dataset_id)
        return rows[0] if rows else None

    def n_entries(self, dataset_id: str) -> int:
        """Entries of the manifest. Raises MissingPrerequisiteError when the dataset isn't prepared."""
        n: int = self.value("SELECT count(*) FROM manifest_entries WHERE dataset_id = ?", dataset_id)
        if n == 0:
            raise MissingPrerequisiteError(
                f"the manifest of {dataset_id} is not in the database yet",
                do="Run `kvt prepare -c CONFIG` first, or `kvt sweep -c CONFIG`, which prepares.",
            )
        return n

    def first_of_each_bin(self, dataset_id: str, limit: int) -> list[int]:
        """seq of the first `limit` entries of each bin, in manifest order; a conversation counts as one, and all its
        turns are taken."""
        firsts = "SELECT bin_idx, min(seq) FROM manifest_entries WHERE dataset_id = ? GROUP BY bin_idx"
        return sorted(
            seq
            for bin_idx, first in self.rows(firsts, dataset_id)
            for seq in self._first(dataset_id, bin_idx, first, limit)
        )

    def _first(self, dataset_id: str, bin_idx: int, first: int, limit: int) -> Iterator[int]:
        """seq of the first `limit` units of one bin, which starts at seq `first`. Nothing is read beyond them."""
        sql = """SELECT e.seq, e.example_id, x.meta_json FROM manifest_entries e JOIN examples x
                 ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id
                 WHERE e.dataset_id = ? AND e.bin_idx = ? AND e.seq >= ? ORDER BY e.seq"""
        units: set[str] = set()
        with self._mutex, closing(self._tuples()) as rows:
            for seq, example_id, meta_json in rows.execute(sql, (dataset_id, bin_idx, first)):
                units.add(unit_of(example_id, orjson.loads(meta_json)))
                if len(units) > limit:
                    return
                yield seq

    def settled(self, run_id: str, n: int, *, samples: int = 1, failed_too: bool = True) -> bytearray:
        """One byte per answer, an entry's `samples` side by side: 1 where the run has its response, or (`failed_too`)
        stands as failed. Answers beyond `samples` are left out.

        Scans two covering indexes in order, whatever the size of the replies: a million takes about a second.
        """
        done = bytearray(n * samples)
        cut, (low, high) = len(run_id) + 2, request_ids_of(run_id)
        sqls = ["SELECT substr(r.request_id, ?) FROM responses r WHERE r.request_id > ? AND r.request_id < ?"]
        if failed_too:
            sqls.append(
                """SELECT substr(g.request_id, ?) FROM give_ups g WHERE g.request_id > ? AND g.request_id < ? AND NOT
                   EXISTS (SELECT 1 FROM try_series t WHERE t.request_id = g.request_id AND t.series_idx > g.series_idx)
                """
            )
        with self._mutex:
            for sql in sqls:
                for (place,) in self._tuples().execute(sql, (cut, low, high)):
                    seq, _, nth = place.partition(".")
                    if not nth:
                        done[int(seq) * samples] = 1
                    elif (sample := int(nth.partition(".")[0])) < samples:  # behind it may stand the turn
                        done[int(seq) * samples + sample] = 1
        return done

    def in_states(self, run_id: str, states: Collection[str]) -> list[str]:
        """request_ids of a run that are in one of these states: response, failure, pending."""
        marks = ",".join("?" * len(states))
        sql = f"SELECT request_id FROM outcomes WHERE run_id = ? AND state IN ({marks})"
        return [row[0] for row in self.rows(sql, run_id, *states)]

    def tried_again(self, run_id: str, n: int, *, samples: int = 1) -> bytearray:
        """One byte per answer, as of `settled`: 1 where --retry-failed has opened a series of tries."""
        tried = bytearray(n * samples)
        sql = "SELECT DISTINCT request_id FROM try_series WHERE request_id > ? AND request_id < ?"
        for (request_id,) in self.rows(sql, *request_ids_of(run_id)):
            seq, sample = entry_of(request_id)
            if sample < samples:
                tried[seq * samples + sample] = 1
        return tried

    def counts(self, run_id: str, samples: int | None = None) -> dict[str, int]:
        """requests, responses and failures of a run, of the first `samples` answers to each example; from covering
        indexes where that is all of them."""
        if samples is not None and (self.value(_MOST_SAMPLES, run_id) or 0) > samples:
            (row,) = self.rows(_COUNTS_OF_SAMPLES, run_id, samples)
            return dict(row)
        low, high = request_ids_of(run_id)
        sql = "SELECT count(*) FROM {} WHERE request_id > ? AND request_id < ?"
        counts = {name: self.value(sql.format(name), low, high) for name in ("requests", "responses")}
        counts["failures"] = self.value(
            """SELECT count(DISTINCT g.request_id) FROM give_ups g WHERE g.request_id > ? AND g.request_id < ?
               AND NOT EXISTS (SELECT 1 FROM responses p WHERE p.request_id = g.request_id) AND NOT EXISTS
               (SELECT 1 FROM try_series t WHERE t.request_id = g.request_id AND t.series_idx > g.series_idx)""",
            low,
            high,
        )
        return counts

    def an_answered(self, run_id: str) -> str | None:
        """The request_id of any of the run's requests that was answered, but no later turn of a conversation, whose
        prompt the manifest may not hold; None: none was."""
        sql = """SELECT request_id FROM responses WHERE request_id > ? AND request_id < ?
                 AND request_id NOT LIKE '%:%.%.%' LIMIT 1"""
        request_id: str | None = self.value(sql, *request_ids_of(run_id))
        return request_id

    def failed(self, run_id: str) -> list[tuple[str, int]]:
        """(request_id, its newest try series) of the run's failures."""
        sql = """SELECT f.request_id, max(ifnull((SELECT max(series_idx) FROM try_series t
                 WHERE t.request_id = f.request_id), 0)) FROM failures f WHERE f.run_id = ? GROUP BY f.request_id"""
        return [(row[0], row[1]) for row in self.rows(sql, run_id)]

    def entries(self, dataset_id: str, seqs: Sequence[int]) -> dict[int, Entry]:
        """Entries with their examples, by seq."""
        with self.reading(dataset_id, seqs) as entries:
            return {entry.seq: entry for entry in entries}

    @contextmanager
    def reading(self, dataset_id: str, seqs: Sequence[int]) -> Iterator[Iterator[Entry]]:
        """`entries` one by one, so that one long prompt alone is in memory. Nothing else is read inside the block."""
        wanted = sorted(set(seqs))
        if wanted and wanted[-1] - wanted[0] == len(wanted) - 1:  # neighbours: cheaper found in one go
            which, values = "BETWEEN ? AND ?", [wanted[0], wanted[-1]]
        else:
            which, values = f"IN ({','.join('?' * len(wanted))})", wanted
        sql = f"""SELECT e.seq, e.token_len, e.context_tokens, e.prompt_sha256,
                  x.example_id, x.question, x.context, x.answers_json, x.meta_json
                  FROM manifest_entries e JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id
                  WHERE e.dataset_id = ? AND e.seq {which}"""
        with self._mutex:
            self._map(MAPPED_BYTES)  # a long prompt is dozens of pages, each a call otherwise
            rows = self._tuples()
            try:
                yield map(Entry._make, rows.execute(sql, (dataset_id, *values)))
            finally:
                rows.close()  # where the block ended early, the read transaction ends with it
                self._map(0)  # what was read through it would stay in our resident memory: in time the whole file

    def past(self, request_ids: Sequence[str]) -> dict[str, Past]:
        """What is stored of these requests; those never queued are missing."""
        marks = ",".join("?" * len(request_ids))
        sql = f"""SELECT r.request_id, (SELECT max(a.attempt_idx) + 1 FROM attempts a
                  WHERE a.request_id = r.request_id) AS n FROM requests r WHERE r.request_id IN ({marks})"""
        return {row[0]: Past(True, row["n"] or 0) for row in self.rows(sql, *request_ids)}

    def replies(self, request_ids: Sequence[str]) -> dict[str, Reply]:
        """Text, reasoning, tool calls and finish reason of those that were answered."""
        marks = ",".join("?" * len(request_ids))
        sql = f"""SELECT request_id, text, reasoning, tool_calls_json, finish_reason FROM responses
                  WHERE request_id IN ({marks})"""
        return {row[0]: (row[1], row[2], row[3], row[4]) for row in self.rows(sql, *request_ids)}

    def are_given_up(self, request_ids: Collection[str]) -> bool:
        """Whether one of them stands as failed."""
        marks = ",".join("?" * len(request_ids))
        return bool(self.value(f"SELECT 1 FROM failures WHERE request_id IN ({marks})", *request_ids))

    def last_endpoint(self, request_ids: Sequence[str]) -> str | None:
        """Who answered the last of them that was answered, as it may be shown; `request_ids` in order."""
        marks = ",".join("?" * len(request_ids))
        sql = f"""SELECT request_id, a.endpoint FROM responses JOIN attempts a USING (request_id, attempt_idx)
                  WHERE request_id IN ({marks})"""
        endpoints = {row[0]: row[1] for row in self.rows(sql, *request_ids)}
        return next((endpoints[name] for name in reversed(request_ids) if name in endpoints), None)

    def series_idx(self, request_ids: Sequence[str]) -> dict[str, int]:
        """The newest try series of those that have more than the first."""
        marks = ",".join("?" * len(request_ids))
        sql = f"SELECT request_id, max(series_idx) FROM try_series WHERE request_id IN ({marks}) GROUP BY request_id"
        return {row[0]: row[1] for row in self.rows(sql, *request_ids)}

    def killed_sessions(self, exp_group_id: str) -> list[tuple[str, int]]:
        """(session_id, concurrency) of the sending sessions that were killed since one last ended in order."""
        sql = """SELECT s.session_id, s.concurrency FROM sessions s LEFT JOIN session_ends e USING (session_id)
                 WHERE s.exp_group_id = ?1 AND e.session_id IS NULL AND s.concurrency IS NOT NULL
                 AND s.started_at >= ifnull((SELECT max(t.started_at) FROM sessions t
                     JOIN session_ends f USING (session_id) WHERE t.exp_group_id = ?1), '') ORDER BY s.started_at"""
        return [(row[0], row[1]) for row in self.rows(sql, exp_group_id)]

    def _map(self, n_bytes: int) -> None:
        self._conn.execute(f"PRAGMA mmap_size={n_bytes}").close()

    def _tuples(self) -> sqlite3.Cursor:
        cursor = self._conn.cursor()
        cursor.row_factory = None
        return cursor
