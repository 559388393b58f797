"""What servers say of the width of their caches, at a level and at full cache: names of data types, bytes per token."""

import json
import re
import sqlite3
from dataclasses import dataclass

from analyzer.read.group_connection import parts
from analyzer.read.runs import Run, baseline_id
from kvt_async.contract.formulas.data_types import is_name, plain_name
from kvt_async.contract.vocabulary import Unit

_LAYER = re.compile(r"\d+|sliding_window")  # entries of vLLM's list of skipped layers


@dataclass(frozen=True, slots=True)
class Said:
    """What the servers of one run said, in all sessions.

    names: of data types, every one once; token_bytes: every reading of the bytes that a token takes; skipped: layers
    that were left at full width (vLLM); layers: of the model that hold a cache, None: not known.
    """

    names: tuple[str, ...] = ()
    token_bytes: tuple[float, ...] = ()
    skipped: int = 0
    layers: int | None = None


@dataclass(frozen=True, slots=True)
class CacheWidth:
    """What was said of a level in bits, and of full cache."""

    level: Said
    full: Said


def cache_width(conn: sqlite3.Connection, run: Run) -> CacheWidth | None:
    """None where the run has no bit width to show, or nothing was said of any."""
    if run.kv_unit != Unit.BITS or run.is_full:
        return None
    level, full = _said(conn, run.run_id), baseline_id(conn, run)
    if not level.names and not level.token_bytes:
        return None
    return CacheWidth(level, _said(conn, full) if full is not None else Said())


def _said(conn: sqlite3.Connection, run_id: str) -> Said:
    rows = conn.execute(
        "SELECT identity_json FROM server_snapshots JOIN sessions USING (session_id) "
        "JOIN runs u USING (exp_group_id, generation) WHERE u.run_id = ? AND instr(identity_json, u.run_id) "
        "AND json_extract(identity_json, '$.unreachable') IS NULL ORDER BY taken_at, n",
        (run_id,),
    )
    identities = [json.loads(text) for (text,) in rows]
    readings = [reading for one in identities if (reading := one.get("evidence", {}).get(run_id)) is not None]
    sql = """SELECT DISTINCT json_extract(p.kv_evidence_json, '$.said') FROM responses p
        JOIN requests USING (request_id) WHERE run_id = ? AND json_type(p.kv_evidence_json, '$.said') = 'text'"""
    replies = [name for part in parts(conn) for (name,) in part.execute(sql, (run_id,))]
    said = [reading["raw"] for reading in readings] + replies
    names = {plain_name(name): name for name in said if isinstance(name, str) and is_name(name)}
    sizes = [reading.get("token_bytes") or {} for reading in readings]
    skipped = [str(one.get("cache_config", {}).get("kv_cache_dtype_skip_layers", "")) for one in identities]
    return Said(
        tuple(sorted(names.values())),
        tuple(size["each"] for size in sizes if size.get("each") is not None),
        max((len(_LAYER.findall(text)) for text in skipped), default=0),
        next((size["layers"] for size in sizes if size.get("layers") is not None), None),
    )
