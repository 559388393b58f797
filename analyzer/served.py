"""What stored facts say of the server: blocks it rounds to, the canary's verdict, and whether it stayed one."""

import json
import sqlite3

from analyzer.tables import Run
from kvt_async.contract.errors import DriftError
from kvt_async.contract.server_identity import Snapshot, drifts

_WORST = ("dead", "inconclusive")


def round_to(conn: sqlite3.Connection, run: Run) -> int:
    """Tokens of the blocks that the run's server keeps whole; 1: none are known."""
    row = conn.execute("SELECT apply_json FROM runs WHERE run_id = ?", (run.run_id,)).fetchone()
    return int(json.loads(row[0]).get("apply", {}).get("round_to", 1)) if row else 1


def canary(conn: sqlite3.Connection, run: Run) -> str | None:
    """The worst verdict of the sessions that sent the run: dead | inconclusive; None: nothing against it."""
    rows = conn.execute(
        "SELECT DISTINCT p.verdict FROM probes p WHERE p.kind = 'canary' AND p.verdict IS NOT NULL AND p.session_id IN "
        "(SELECT DISTINCT a.session_id FROM requests r JOIN attempts a USING (request_id) WHERE r.run_id = ?)",
        (run.run_id,),
    )
    found = {row[0] for row in rows}
    return next((verdict for verdict in _WORST if verdict in found), None)


def refuse_drift(conn: sqlite3.Connection, group: str, generation: int) -> None:
    """Raises DriftError where a server became another one while a session was sending to it."""
    rows = conn.execute(
        "SELECT ifnull(n.run_id, n.endpoint), n.session_id, n.identity_json FROM server_snapshots n "
        "JOIN sessions s USING (session_id) WHERE s.exp_group_id = ? AND s.generation = ? ORDER BY n.snapshot_id",
        (group, generation),
    )
    found = drifts(Snapshot(row[0], row[1], json.loads(row[2])) for row in rows)
    if found:
        raise DriftError(
            "the server became another one while this group was sent; its answers can't be analysed as one server's",
            details=tuple(f"{one.key}, session {one.session_id}: {one.what}" for one in found),
            do="Sweep again under a new experiment.exp_group_id, or go on all the same with "
            "--override analysis.allow_drift=true.",
        )
