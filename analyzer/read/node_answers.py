"""Full cache on the servers of several shards of levels: is one server as good as another?

Each shard asks its server for the same few entries at full cache. Held against the baseline's answers, a server that is
like the baseline's own changes as many of them as that one does when it is asked again.
"""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from analyzer.read.drift import sign_p
from analyzer.read.group_connection import parts
from analyzer.read.same_answer import calls_of
from kvt_async.contract.vocabulary import NODE_REPEATS

Answer = tuple[str, str | None]  # text, tool calls without their ids


@dataclass(frozen=True, slots=True)
class NodeAnswers:
    """Of `n` answers that the baseline, its own server asked again and this shard's server all gave: how many differ
    from the baseline's on this server, and how many when its own was asked again. `p`: that the first are more by
    chance, exact and one-sided, over the answers where the two disagree."""

    shard: int
    n: int
    changed: int
    changed_again: int
    p: float


def node_answers(conn: sqlite3.Connection, group: str, generation: int, dataset_id: str) -> tuple[NodeAnswers, ...]:
    """Of every shard of levels but the baseline's own; empty where the group was not sent in such shards."""
    runs = conn.execute(
        "SELECT run_id, repeat_idx FROM runs WHERE exp_group_id = ? AND generation = ? AND dataset_id = ? AND is_full "
        "AND (repeat_idx = 0 OR repeat_idx > ?) ORDER BY repeat_idx",
        (group, generation, dataset_id, NODE_REPEATS),
    ).fetchall()
    full = next((run_id for run_id, repeat_idx in runs if not repeat_idx), None)
    nodes = {repeat_idx - NODE_REPEATS: run_id for run_id, repeat_idx in runs if repeat_idx}
    own = None if full is None or len(nodes) < 2 else _shard_of(conn, full)
    if full is None or own not in nodes:
        return ()
    again = _answers(conn, nodes[own])
    baseline = _answers(conn, full, only=again.keys())
    return tuple(
        _compared(shard, baseline, again, _answers(conn, run_id)) for shard, run_id in nodes.items() if shard != own
    )


def _compared(
    shard: int, baseline: dict[str, Answer], again: dict[str, Answer], here: dict[str, Answer]
) -> NodeAnswers:
    places = baseline.keys() & again.keys() & here.keys()
    differs = {at: here[at] != baseline[at] for at in places}
    differs_again = {at: again[at] != baseline[at] for at in places}
    more = sum(differs[at] and not differs_again[at] for at in places)
    less = sum(differs_again[at] and not differs[at] for at in places)
    return NodeAnswers(shard, len(places), sum(differs.values()), sum(differs_again.values()), sign_p(more, less))


def _shard_of(conn: sqlite3.Connection, run_id: str) -> int | None:
    """The shard that sent a run; None: it was sent without shards, or nothing of it was."""
    sql = """SELECT s.shard_i FROM requests r JOIN attempts a USING (request_id) JOIN sessions s USING (session_id)
             WHERE r.run_id = ? LIMIT 1"""
    return next((row[0] for part in parts(conn) for row in part.execute(sql, (run_id,))), None)


def _answers(conn: sqlite3.Connection, run_id: str, only: Collection[str] | None = None) -> dict[str, Answer]:
    """A run's answers by place (what follows the run in a request's id); of `only` these places, where it is given."""
    sql = f"SELECT substr(p.request_id, ?), p.text, {calls_of('p')} FROM responses p WHERE p.request_id "
    cut = len(run_id) + 2
    if only is None:
        ids, where = [f"{run_id}:", f"{run_id};"], "> ? AND p.request_id < ?"
    else:
        ids = [f"{run_id}:{place}" for place in only]
        where = f"IN ({','.join('?' * len(ids))})"
    return {row[0]: (row[1], row[2]) for part in parts(conn) for row in part.execute(sql + where, (cut, *ids))}
