"""What stored facts say of the server: blocks it rounds to, the canary's verdict, what it said of its budgets before
and after a run's requests, and whether it stayed one server."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analyzer.tables import Run
from kvt_async.contract.errors import DriftError
from kvt_async.contract.server_identity import Drift, Snapshot, drifts

_WORST = ("dead", "inconclusive")


@dataclass(frozen=True, slots=True)
class Look:
    """What a server said of a run's budget on its metrics page or in its log; `value` None: nothing was found there.

    `unit`: of `value`; `phase`: start (before the requests) or end.
    """

    phase: str
    read_from: str
    raw: str
    value: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class Served:
    """All that is known of the server of one run, beside its replies."""

    round_to: int = 1  # tokens of a block that it keeps whole
    canary: str | None = None  # the worst verdict: dead | inconclusive; None: nothing against it
    looks: tuple[Look, ...] = ()


def served(conn: sqlite3.Connection, run: Run) -> Served:
    """What the facts say of the run's server."""
    return Served(round_to(conn, run), canary(conn, run), looks(conn, run))


def round_to(conn: sqlite3.Connection, run: Run) -> int:
    """Tokens of the blocks that the run's server keeps whole; 1: none are known."""
    return int(_asked(conn, run).get("apply", {}).get("round_to", 1))


def canary(conn: sqlite3.Connection, run: Run) -> str | None:
    """The worst verdict of the sessions that sent the run: dead | inconclusive; None: nothing against it."""
    rows = conn.execute(
        "SELECT DISTINCT p.verdict, p.session_id FROM runs u JOIN sessions s USING (exp_group_id, generation) "
        "JOIN probes p USING (session_id) WHERE u.run_id = ? AND p.kind = 'canary' AND p.verdict IN (?, ?)",
        (run.run_id, *_WORST),
    ).fetchall()
    sent = "SELECT 1 FROM requests r JOIN attempts a USING (request_id) WHERE r.run_id = ? AND a.session_id = ? LIMIT 1"
    found = {verdict for verdict, session in rows if conn.execute(sent, (run.run_id, session)).fetchone()}
    return next((verdict for verdict in _WORST if verdict in found), None)


def looks(conn: sqlite3.Connection, run: Run) -> tuple[Look, ...]:
    """Every look at the run's server, in the order they were taken; one at a server that was gone says nothing."""
    rows = conn.execute(
        "SELECT phase, json_extract(identity_json, '$.evidence') FROM server_snapshots "
        "JOIN sessions USING (session_id) JOIN runs u USING (exp_group_id, generation) "
        "WHERE u.run_id = ? AND instr(identity_json, u.run_id) "
        "AND json_extract(identity_json, '$.unreachable') IS NULL ORDER BY snapshot_id",
        (run.run_id,),
    ).fetchall()
    unit = _asked(conn, run).get("evidence", {}).get("unit") or run.kv_unit if rows else ""
    said = [(phase, json.loads(text or "{}").get(run.run_id)) for phase, text in rows]
    return tuple(Look(phase, s["read_from"], str(s["raw"]), s["value"], unit) for phase, s in said if s is not None)


def group_drifts(conn: sqlite3.Connection, group: str, generation: int) -> list[Drift]:
    """Where a server became another one while this generation was sent."""
    rows = conn.execute(
        "SELECT ifnull(n.run_id, n.endpoint), n.session_id, n.identity_json, ifnull((SELECT u.model_name FROM runs u "
        "WHERE u.exp_group_id = s.exp_group_id AND u.generation = s.generation LIMIT 1), '') FROM server_snapshots n "
        "JOIN sessions s USING (session_id) WHERE s.exp_group_id = ? AND s.generation = ? ORDER BY n.snapshot_id",
        (group, generation),
    )
    return drifts(Snapshot(row[0], row[1], json.loads(row[2]), row[3]) for row in rows)


def refuse_drift(
    found: Sequence[Drift], *, group: str = "this group", leave: str = "--override analysis.allow_drift=true"
) -> None:
    """Raises DriftError where there is any; `leave`: what the user says to go on all the same."""
    if found:
        raise DriftError(
            f"the server became another one while {group} was sent; its answers can't be analysed as one server's",
            details=tuple(f"{one.key}, session {one.session_id}: {one.what}" for one in found),
            do=f"Sweep again under a new experiment.exp_group_id, or go on all the same with {leave}.",
        )


def _asked(conn: sqlite3.Connection, run: Run) -> dict[str, Any]:
    """What the level asked of its server: {apply, evidence, ...}."""
    row = conn.execute("SELECT apply_json FROM runs WHERE run_id = ?", (run.run_id,)).fetchone()
    found: dict[str, Any] = json.loads(row[0]) if row else {}
    return found
