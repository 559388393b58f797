"""What stored facts say of the server: blocks it rounds to, the canary's verdict, what it said of its budgets before
and after a run's requests, and whether it stayed one server."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

from analyzer.read.cache_width import CacheWidth, cache_width
from analyzer.read.group_connection import parts
from analyzer.read.runs import Run
from analyzer.read.same_answer import same_answer
from kvt_async.contract.errors import DriftError
from kvt_async.contract.formulas.data_types import is_data_type
from kvt_async.contract.formulas.server_identity import Drift, Snapshot, between, drifts
from kvt_async.contract.labels import level_label
from kvt_async.contract.vocabulary import CanaryVerdict, Unit, When

_JUDGED_WHEN = "ifnull(p.detail_json ->> '$.when', 'prefill')"  # a canary judges the budgets that apply then
_WORST = (CanaryVerdict.DEAD, CanaryVerdict.INCONCLUSIVE)
# Answers at a level and at full cache's repeat, each against full cache, over the examples that all three answered;
# of several answers the first, since those to one example depend on each other.
_CHANGED = f"""
SELECT count(*), ifnull(sum(here), 0), ifnull(sum(again), 0), ifnull(sum(here > again), 0), ifnull(sum(again > here), 0)
FROM (SELECT NOT {same_answer("p", "f")} AS here, NOT {same_answer("a", "f")} AS again
      FROM requests r JOIN responses p ON p.request_id = r.request_id
      JOIN requests rf ON rf.run_id = ? AND rf.example_id = r.example_id AND rf.sample_idx = 0 AND rf.turn_idx = 0
      JOIN responses f ON f.request_id = rf.request_id
      JOIN requests ra ON ra.run_id = ? AND ra.example_id = r.example_id AND ra.sample_idx = 0 AND ra.turn_idx = 0
      JOIN responses a ON a.request_id = ra.request_id
      WHERE r.run_id = ? AND r.sample_idx = 0 AND r.turn_idx = 0)
"""


@dataclass(frozen=True, slots=True)
class BudgetReading:
    """What a server said of a run's budget on its metrics page or in its log; `value` None: nothing was found there.

    `unit`: of `value`; `phase`: start (before the requests) or end.
    """

    phase: str
    read_from: str
    raw: str
    value: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class RunServer:
    """All that is known of the server of one run, beside its replies."""

    round_to: int = 1  # tokens of a block that it keeps whole
    canary: CanaryVerdict | None = None  # the worst one, DEAD or INCONCLUSIVE; None: nothing against it
    readings: tuple[BudgetReading, ...] = ()
    width: CacheWidth | None = None  # of a run in bits: what was said of its cache's width

    @property
    def as_json(self) -> dict[str, Any]:
        """What an analysis' fingerprint holds of it; its names are stored by their hash, so they stay."""
        width = {} if self.width is None else {"width": asdict(self.width)}
        looks = [asdict(one) for one in self.readings]
        return {"round_to": self.round_to, "canary": self.canary, "looks": looks, **width}


@dataclass(frozen=True, slots=True)
class Answers:
    """The sweep's own answers beside the canary's verdict: how many of `n` pairs changed at the level that it judged,
    and how many when full cache was run again. `p`: exact and one-sided, over the examples where the two differ."""

    verdict: CanaryVerdict  # DEAD or INCONCLUSIVE
    level: str
    n: int
    changed: int
    changed_again: int
    p: float
    when: str = When.PREFILL.value  # the budgets that it judged apply

    def overrule(self, alpha: float) -> bool:
        """Whether more answers changed with the budget than without it."""
        return self.p <= alpha / 2


def run_server(conn: sqlite3.Connection, run: Run, beside_canary: Answers | None, alpha: float = 0.05) -> RunServer:
    """What the facts say of the run's server; `beside_canary`: of the run's generation."""
    verdict, readings = canary(conn, run, beside_canary, alpha), budget_readings(conn, run)
    return RunServer(round_to(conn, run), verdict, readings, cache_width(conn, run))


def round_to(conn: sqlite3.Connection, run: Run) -> int:
    """Tokens of the blocks that the run's server keeps whole; 1: none are known."""
    return int(_apply_json(conn, run).get("apply", {}).get("round_to", 1))


def canary(
    conn: sqlite3.Connection, run: Run, beside_canary: Answers | None, alpha: float = 0.05
) -> CanaryVerdict | None:
    """The worst verdict of the sessions that sent the run, DEAD or INCONCLUSIVE; None: nothing against it, or overruled
    by the answers of the sweep."""
    rows = conn.execute(
        "SELECT DISTINCT p.verdict, p.session_id FROM runs u JOIN sessions s USING (exp_group_id, generation) "
        "JOIN probes p USING (session_id) WHERE u.run_id = ? AND p.kind = 'canary' AND p.verdict IN (?, ?) "
        f"AND {_JUDGED_WHEN} = ?",
        (run.run_id, *_WORST, run.kv_when),
    ).fetchall()
    sent = "SELECT 1 FROM requests r JOIN attempts a USING (request_id) WHERE r.run_id = ? AND a.session_id = ? LIMIT 1"
    verdicts = {
        verdict
        for verdict, session in rows
        if any(part.execute(sent, (run.run_id, session)).fetchone() for part in parts(conn))
    }
    verdict = next((verdict for verdict in _WORST if verdict in verdicts), None)
    judged = beside_canary if beside_canary is not None and beside_canary.when == run.kv_when else None
    return None if judged is not None and judged.overrule(alpha) else verdict


def answers_beside_canary(conn: sqlite3.Connection, group: str, generation: int) -> Answers | None:
    """What became of the level that a dead or inconclusive canary judged; None: no such canary, no A/A control, or
    nothing answered."""
    row = conn.execute(
        f"SELECT p.verdict, p.level, {_JUDGED_WHEN} FROM probes p JOIN sessions s USING (session_id) "
        "WHERE s.exp_group_id = ? AND s.generation = ? AND p.kind = 'canary' AND p.verdict IN (?, ?) "
        "ORDER BY p.created_at DESC, p.n DESC LIMIT 1",
        (group, generation, *_WORST),
    ).fetchone()
    if row is None:
        return None
    levels = conn.execute(
        "SELECT run_id, series, kv_budget, kv_unit, is_full, repeat_idx, dataset_id FROM runs WHERE exp_group_id = ? "
        "AND generation = ? ORDER BY repeat_idx",
        (group, generation),
    ).fetchall()
    counts = [0] * 5
    for dataset_id in dict.fromkeys(level[6] for level in levels):
        own = [level for level in levels if level[6] == dataset_id]
        full = next((r[0] for r in own if r[4] and not r[5]), None)
        again = next((r[0] for r in own if r[4] and r[5]), None)
        judged = next((r[0] for r in own if not r[4] and level_label(r[1], r[2], r[3], is_full=False) == row[1]), None)
        for part in parts(conn):  # the three answers to an example are in one database, or not to be compared
            changed_here = part.execute(_CHANGED, (full, again, judged)).fetchone()
            counts = [a + b for a, b in zip(counts, changed_here, strict=True)]
    n, changed, changed_again, more, less = counts
    verdict, level, when = CanaryVerdict(row[0]), row[1], row[2]
    return Answers(verdict, level, n, changed, changed_again, sign_p(more, less), when) if n else None


def sign_p(more: int, less: int) -> float:
    """One-sided exact sign test: the chance of `more` or above among more + less fair coins; 1 where there is none."""
    n = more + less
    return float(sum(comb(n, k) for k in range(more, n + 1)) / 2**n) if n else 1.0


def budget_readings(conn: sqlite3.Connection, run: Run) -> tuple[BudgetReading, ...]:
    """Every reading of the run's server, in the order they were taken, but those of a server that was gone."""
    rows = conn.execute(
        "SELECT phase, json_extract(identity_json, '$.evidence') FROM server_snapshots "
        "JOIN sessions USING (session_id) JOIN runs u USING (exp_group_id, generation) "
        "WHERE u.run_id = ? AND instr(identity_json, u.run_id) "
        "AND json_extract(identity_json, '$.unreachable') IS NULL ORDER BY taken_at, n",
        (run.run_id,),
    ).fetchall()
    unit = _apply_json(conn, run).get("evidence", {}).get("unit") or run.kv_unit if rows else ""
    stored = [(phase, json.loads(text or "{}").get(run.run_id)) for phase, text in rows]
    return tuple(
        BudgetReading(
            phase,
            reading["read_from"],
            str(reading["raw"]),
            reading["value"],
            Unit.BITS if is_data_type(reading["raw"]) else unit,
        )
        for phase, reading in stored
        if reading is not None
    )


def group_drifts(conn: sqlite3.Connection, group: str, generation: int) -> list[Drift]:
    """Where a server became another one while this generation was sent."""
    return drifts(_snapshots(conn, group, generation))


def _snapshots(conn: sqlite3.Connection, group: str, generation: int) -> Iterator[Snapshot]:
    rows = conn.execute(
        "SELECT ifnull(n.run_id, n.endpoint), n.session_id, n.identity_json, ifnull((SELECT u.model_name FROM runs u "
        "WHERE u.exp_group_id = s.exp_group_id AND u.generation = s.generation LIMIT 1), '') FROM server_snapshots n "
        "JOIN sessions s USING (session_id) WHERE s.exp_group_id = ? AND s.generation = ? ORDER BY n.taken_at, n.n",
        (group, generation),
    )
    return (Snapshot(row[0], row[1], json.loads(row[2]), row[3]) for row in rows)


def level_differences(conn: sqlite3.Connection, group: str, generation: int) -> list[Drift]:
    """Where levels that have a server each were served by different programs."""
    return between(_snapshots(conn, group, generation))


def refuse_drift(
    changes: Sequence[Drift], *, group: str = "this group", leave: str = "--override analysis.allow_drift=true"
) -> None:
    """Raises DriftError where there is any; `leave`: what the user says to go on all the same."""
    if changes:
        raise DriftError(
            f"the server became another one while {group} was sent; its answers can't be analysed as one server's",
            details=tuple(f"{drift.key}, session {drift.session_id}: {drift.what}" for drift in changes),
            do=f"Sweep again under a new experiment.exp_group_id, or go on all the same with {leave}.",
        )


def _apply_json(conn: sqlite3.Connection, run: Run) -> dict[str, Any]:
    """What the level asked of its server: {apply, evidence, ...}."""
    row = conn.execute("SELECT apply_json FROM runs WHERE run_id = ?", (run.run_id,)).fetchone()
    loaded: dict[str, Any] = json.loads(row[0]) if row else {}
    return loaded
