"""`kvt verify` of a bench: every stored figure of its stages, loads and zones made again from the facts."""

import json
import sqlite3

from analyzer.bench import stored_figures
from analyzer.bench.bench_analysis import measured
from analyzer.bench.read.stage_facts import stages
from analyzer.store import derived_rows as rows_of
from analyzer.verify.differences import Difference, Findings, compare, rows

_RUNS = "run_id IN (SELECT run_id FROM runs WHERE exp_group_id = ? AND generation = ?)"
_MARK = ("fingerprint",)
_GROUP = "exp_group_id = ? AND generation = ?"


def verify_bench(facts: sqlite3.Connection, group: str, generation: int, findings: Findings) -> str | None:
    """Compare what is stored of a benched group; the fingerprint of its rows, None where there are none."""
    here = (group, generation)
    where = {table: _GROUP if "level" in keys else _RUNS for table, keys in stored_figures.TABLES.items()}
    stored = {table: rows(facts.execute(f"SELECT * FROM {table} WHERE {own}", here)) for table, own in where.items()}
    n = sum(map(len, stored.values()))
    state = facts.execute(
        f"SELECT detail_json, fingerprint FROM analysis_state WHERE {_GROUP} AND stage = ?",
        (*here, stored_figures.STAGE),
    ).fetchone()
    if state is None:
        findings.cannot_check("no record says how these rows of a bench were made: run `kvt bench report`", n)
        return None
    detail = json.loads(state[0])
    if detail["analyzer_version"] != stored_figures.BENCH_VERSION:
        made_by = f"made by bench analyzer {detail['analyzer_version']}, this is {stored_figures.BENCH_VERSION}"
        findings.cannot_check(f"{made_by}: can't be checked", n)
    elif detail["outcomes"] != stored_figures.n_outcomes(facts, *here):
        findings.cannot_check("made before the newest facts: run `kvt bench report`", max(n, 1))
    else:
        results, points, zones = measured(facts, stages(facts, *here), detail["alpha"], detail["slo"])
        made = stored_figures.table_rows(group, generation, points, results, zones)
        for table, keys in stored_figures.TABLES.items():
            # The fingerprint hashes unrounded figures, whose last bits belong to the machine that computed them.
            compare(findings, table, keys, stored[table], [rows_of.plain(row) for row in made[table]], but=_MARK)
            for row in stored[table]:
                if row["fingerprint"] != state[1]:
                    key = {name: row[name] for name in keys}
                    findings.add(Difference(table, key, "fingerprint", row["fingerprint"], state[1]))
    return str(stored["bench_points"][0]["fingerprint"]) if stored["bench_points"] else None
