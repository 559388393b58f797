"""`kvt verify` of a bench: every stored figure of its stages, loads and zones made again from the facts."""

import json
import sqlite3

from analyzer.bench import stored_figures
from analyzer.bench.bench_analysis import measured
from analyzer.bench.quality.load_loss import LossRule, load_losses
from analyzer.bench.quality.scored_stages import ScoredLevel, scored_levels
from analyzer.bench.read.stage_facts import run_of, stages
from analyzer.read import examples
from analyzer.store import derived_rows as rows_of
from analyzer.verify.differences import Difference, Findings, compare, rows
from analyzer.verify.rescoring import Database, RunToCheck, check_run

_RUNS = "run_id IN (SELECT run_id FROM runs WHERE exp_group_id = ? AND generation = ?)"
_MARK = ("fingerprint",)
_GROUP = "exp_group_id = ? AND generation = ?"


def verify_bench(
    db: Database, facts: sqlite3.Connection, group: str, generation: int, findings: Findings
) -> str | None:
    """Compare what is stored of a benched group, scores of answers among it; the fingerprint of its rows, None where
    there are none."""
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
        planned = stages(facts, *here)
        levels = scored_levels(planned)
        if "margin" not in detail:
            levels = []  # analysed by a kvt that scored none
        for level in levels:
            _scores(db, facts, level, detail["metric"], findings)
        results, points, zones = measured(facts, planned, detail["alpha"], detail["slo"])
        made_with = [detail[name] for name in ("margin", "margin_kind", "alpha", "metric")] if levels else []
        losses = load_losses(facts, levels, LossRule(*made_with))
        made = stored_figures.table_rows(group, generation, points, results, zones, losses)
        for table, keys in stored_figures.TABLES.items():
            # The fingerprint hashes unrounded figures, whose last bits belong to the machine that computed them.
            compare(findings, table, keys, stored[table], [rows_of.plain(row) for row in made[table]], but=_MARK)
            for row in stored[table]:
                if row["fingerprint"] != state[1]:
                    key = {name: row[name] for name in keys}
                    findings.add(Difference(table, key, "fingerprint", row["fingerprint"], state[1]))
    return str(stored["bench_points"][0]["fingerprint"]) if stored["bench_points"] else None


def _scores(
    db: Database, facts: sqlite3.Connection, level: ScoredLevel, metric: str | None, findings: Findings
) -> None:
    """The answers of a level's stages scored again: what its losses are made of."""
    baseline = run_of(facts, level.baseline.run_id)
    dataset = examples.dataset(facts, baseline.dataset_id).scored_by(metric)
    for stage in level.stages:
        run = run_of(facts, stage.run_id)
        of_run, _ = check_run(RunToCheck(db, run, baseline.run_id, dataset, None, complete=True))
        findings.merge(of_run)
