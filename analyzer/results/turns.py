"""Conversations turn by turn: what each level scored at each turn, and where its prompts came from."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analyzer.read.group_connection import parts
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.vocabulary import CacheState

_NAMED = "SELECT 1 FROM examples WHERE dataset_id = ? AND example_id GLOB '*.t[1-9]*' LIMIT 1"  # from an index alone
_FIRST = """SELECT 1 FROM manifest_entries e JOIN examples x USING (dataset_id, example_id)
    WHERE e.dataset_id = ? AND e.seq < 16 AND instr(x.meta_json, '"conversation"') LIMIT 1"""
_TURNS = """SELECT r.run_id, r.turn_idx, count(*), avg(s.score), sum(p.request_id IS NULL),
    sum(t.cached_tokens), sum(t.prompt_tokens) FILTER (WHERE t.cached_tokens IS NOT NULL)
    FROM requests r JOIN scores s ON s.request_id = r.request_id
    LEFT JOIN responses p ON p.request_id = r.request_id
    LEFT JOIN telemetry t ON t.request_id = p.request_id AND t.attempt_idx = p.attempt_idx
    WHERE r.run_id = ? GROUP BY r.turn_idx ORDER BY r.turn_idx"""
_MOVED = """SELECT count(*) FROM (SELECT 1 FROM requests r
    JOIN responses p ON p.request_id = r.request_id
    JOIN attempts a ON a.request_id = p.request_id AND a.attempt_idx = p.attempt_idx
    JOIN examples x ON x.dataset_id = ? AND x.example_id = r.example_id
    WHERE r.run_id = ? GROUP BY json_extract(x.meta_json, '$.conversation'), r.sample_idx
    HAVING count(DISTINCT a.endpoint) > 1)"""


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """One turn at one level, over all conversations: `n` finished requests, their mean score (failures score 0), and
    the prompt tokens that came out of the server's prefix cache, of those whose reply says so; None: none says."""

    run_id: str
    turn_idx: int
    n: int
    acc_mean: float
    n_failed: int
    cached_tokens: int | None
    prompt_tokens: int | None

    @property
    def cached_share(self) -> float | None:
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens


def read_turns(conn: sqlite3.Connection, dataset_id: str, run_ids: Sequence[str]) -> list[TurnFigures]:
    """Every turn of every run of a task, in order; empty where its data have no later turns."""
    if not any(conn.execute(sql, (dataset_id,)).fetchone() for sql in (_NAMED, _FIRST)):
        return []
    rows = [row for run_id in run_ids for row in _turns(conn, run_id)]
    return rows if any(row.turn_idx for row in rows) else []


def _turns(conn: sqlite3.Connection, run_id: str) -> list[TurnFigures]:
    """Every turn of one run: of several databases the sums, and the mean of what each scored."""
    of_parts: dict[int, list[TurnFigures]] = {}
    for part in parts(conn):
        for row in part.execute(_TURNS, (run_id,)):
            of_parts.setdefault(row[1], []).append(TurnFigures(*row))
    return [figures[0] if len(figures) == 1 else _together(figures) for _, figures in sorted(of_parts.items())]


def _together(figures: Sequence[TurnFigures]) -> TurnFigures:
    """One turn of one run, of several databases."""
    n = sum(each.n for each in figures)
    cached = [each.cached_tokens for each in figures if each.cached_tokens is not None]
    prompt = [each.prompt_tokens for each in figures if each.prompt_tokens is not None]
    return replace(
        figures[0],
        n=n,
        acc_mean=sum(each.n * each.acc_mean for each in figures) / n,
        n_failed=sum(each.n_failed for each in figures),
        cached_tokens=sum(cached) if cached else None,
        prompt_tokens=sum(prompt) if prompt else None,
    )


def conversations_moved(conn: sqlite3.Connection, dataset_id: str, run_ids: Sequence[str]) -> int:
    """How many conversations had turns that were answered by different endpoints, at all levels together."""
    key = [(dataset_id, run_id) for run_id in run_ids]
    return sum(int(part.execute(_MOVED, each).fetchone()[0]) for part in parts(conn) for each in key)


def later_cache_state(turns: Sequence[TurnFigures], run_id: str) -> CacheState:
    """Where the prompts of a level's later turns came from."""
    later = [row for row in turns if row.run_id == run_id and row.turn_idx and row.cached_share is not None]
    prompt = sum(row.prompt_tokens or 0 for row in later)
    return cache_state(sum(row.cached_tokens or 0 for row in later) / prompt if prompt else None)
