"""What servers say of the width of their caches, at a level and at full cache: names of data types, bytes per token."""

import json
import sqlite3
from dataclasses import dataclass

from analyzer.read.runs import Run, baseline_id
from kvt_async.contract.formulas.data_types import is_name, plain_name
from kvt_async.contract.vocabulary import Unit


@dataclass(frozen=True, slots=True)
class CacheWidth:
    """Names as the servers said them, every one once; `token_bytes`: every reading of the bytes that a token takes."""

    names: tuple[str, ...] = ()
    full_names: tuple[str, ...] = ()
    token_bytes: tuple[float, ...] = ()
    full_token_bytes: tuple[float, ...] = ()


def cache_width(conn: sqlite3.Connection, run: Run) -> CacheWidth | None:
    """None where the run has no bit width to show, or nothing was said of any."""
    if run.kv_unit != Unit.BITS or run.is_full:
        return None
    names, token_bytes = _said(conn, run.run_id)
    full = baseline_id(conn, run)
    full_names, full_token_bytes = _said(conn, full) if full is not None else ((), ())
    return CacheWidth(names, full_names, token_bytes, full_token_bytes) if names or token_bytes else None


def _said(conn: sqlite3.Connection, run_id: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """(names, bytes per token) from the pages and logs of a run's servers, and names from its replies."""
    rows = conn.execute(
        "SELECT json_extract(identity_json, '$.evidence') FROM server_snapshots JOIN sessions USING (session_id) "
        "JOIN runs u USING (exp_group_id, generation) WHERE u.run_id = ? AND instr(identity_json, u.run_id) "
        "AND json_extract(identity_json, '$.unreachable') IS NULL ORDER BY taken_at, n",
        (run_id,),
    )
    readings = [reading for (text,) in rows if (reading := json.loads(text or "{}").get(run_id)) is not None]
    replies = conn.execute(
        "SELECT DISTINCT json_extract(p.kv_evidence_json, '$.said') FROM responses p JOIN requests USING (request_id) "
        "WHERE run_id = ? AND json_type(p.kv_evidence_json, '$.said') = 'text'",
        (run_id,),
    )
    said = [reading["raw"] for reading in readings] + [name for (name,) in replies]
    names = {plain_name(name): name for name in said if isinstance(name, str) and is_name(name)}
    sizes = [size for reading in readings if (size := (reading.get("token_bytes") or {}).get("each")) is not None]
    return tuple(sorted(names.values())), tuple(sizes)
