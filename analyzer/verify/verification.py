"""`kvt verify`: every derived row made again from the facts and compared with what is stored. Nothing is written.

Scores are recomputed run by run into a temporary table that lies over the stored one, so that the analysis that follows
reads recomputed scores only: an edited score can't vouch for the mean that was made of it. The analysis is repeated
under its own stored settings and seed. Rows that another version of scorer or analyzer made can't be judged.
"""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from analyzer import parallel
from analyzer.read import runs as tables
from analyzer.read.declared_plan import plan_of
from analyzer.read.drift import answers_beside_canary, group_drifts, level_differences
from analyzer.scoring import score
from analyzer.store import derived_rows
from analyzer.store.derived_rows import ANALYZER_VERSION
from analyzer.store.tables import as_columns
from analyzer.summarise.analyze import STAGE, Question, answer, fingerprint_of
from analyzer.summarise.bin_stats import CiRule
from analyzer.summarise.run_data import RunData
from analyzer.verify import differences
from analyzer.verify.bench_rows import verify_bench
from analyzer.verify.differences import Difference, Findings
from analyzer.verify.integrity import check_drift, check_facts
from analyzer.verify.rescoring import Database, Job, check_run
from kvt_async.contract.damage import has_wal
from kvt_async.contract.errors import GuardError
from kvt_async.contract.formulas.server_identity import Drift
from kvt_async.contract.settings import Analysis

Report = Callable[[str], None]

ANALYSED = (*derived_rows.RUN_TABLES, *derived_rows.GROUP_TABLES)


@dataclass
class Checked:
    """One generation of a group. `content`: hash of the rows that its analysis left; None: there are none."""

    exp_group_id: str
    generation: int
    content: str | None = None
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class Analysed:
    """A stored analysis: of a whole generation (scope '*') or of one run."""

    scope: str
    fingerprint: str
    version: str
    analysis: Analysis


def verify(db: Path, data_dir: Path | None = None, progress: Report = lambda _: None) -> tuple[Findings, list[Checked]]:
    """Findings about the facts, and about the derived rows of every generation of every group.

    `data_dir`: where the manifests lie, if they are at hand.

    Raises MissingPrerequisiteError where there is no database, GuardError where it was written to meanwhile.
    """
    with _still(db) as file, closing(tables.held(file.connect())) as facts:
        of_facts = check_facts(facts, data_dir, progress)
        found = [
            _generation(file, facts, group, generation, progress)
            for group, generation in facts.execute(
                "SELECT exp_group_id, generation FROM experiments ORDER BY exp_group_id, generation"
            ).fetchall()
        ]
        _unexplained(facts, of_facts)
    progress("")
    return of_facts, found


@contextmanager
def _still(db: Path) -> Iterator[Database]:
    """The database as one that may be read without a trace; a copy where a killed writer left its log beside it."""
    if not has_wal(db):
        before = _stamp(db)
        yield Database(db, frozen=True)
        if _stamp(db) != before or has_wal(db):
            raise _written_meanwhile(db)
    elif db.with_name(f"{db.name}-shm").exists():
        yield Database(db, frozen=False)  # somebody writes: what readers share is there already
    else:
        with tempfile.TemporaryDirectory(prefix="kvt-verify-") as folder:
            log = db.with_name(f"{db.name}-wal")
            copied = _stamp(db), _stamp(log)
            for file in (db, log):
                shutil.copyfile(file, Path(folder) / file.name)
            if (_stamp(db), _stamp(log)) != copied:
                raise _written_meanwhile(db)
            yield Database(Path(folder) / db.name, frozen=False)


def _written_meanwhile(db: Path) -> GuardError:
    return GuardError(
        "the database was written to while it was checked", where=str(db), do="Run the same command again."
    )


def _stamp(db: Path) -> tuple[int, int]:
    stat = db.stat() if db.is_file() else None
    return (stat.st_mtime_ns, stat.st_size) if stat else (0, 0)


def _generation(db: Database, facts: sqlite3.Connection, group: str, generation: int, progress: Report) -> Checked:
    checked = Checked(group, generation)
    findings = checked.findings
    runs = tables.runs(facts, group, generation)
    if not runs:
        return checked
    if tables.benched(facts, group):
        progress(f"{group}: the stages of a bench")
        checked.content = verify_bench(facts, group, generation, findings)
        return checked
    counts = tables.progress(facts, group, generation)
    stored = _analyses(facts, group, generation, findings)
    if stored:
        checked.content = derived_rows.content(facts, group, generation, "*")["content"]
    drifts = group_drifts(facts, group, generation)
    dataset = tables.dataset(facts, runs[0].dataset_id)
    questions = {
        one.scope: question
        for one in stored
        if (question := _question(facts, (group, generation), one, runs, counts, dataset, drifts, findings)) is not None
    }
    whole = next((one for one in stored if one.scope == "*"), None)
    if whole is not None:
        own = whole.analysis
        made_under = f"alpha {own.alpha:g}, margin {own.margin:g}, {own.resamples:,} resamples, seed {own.seed}"
        findings.notes.append(f"analysed by analyzer {whole.version} under {made_under}")
    findings.merge(check_drift(facts, group, generation, allowed=whole is not None and whole.analysis.allow_drift))
    jobs = _jobs(db, facts, (group, generation), runs, counts, questions)
    read = _read(facts, jobs, findings, progress)
    entries = tables.entries(facts, dataset.dataset_id)
    for one in stored:
        if (question := questions.get(one.scope)) is None:
            continue
        progress(f"{group}: the analysis of {len(question.runs)} runs")
        data = [read[run.run_id] for run in question.runs]
        _compare(facts, (group, generation), one, question, data, entries, findings)
    if "*" not in questions:  # else every row was compared with that analysis
        _unjudged(facts, (group, generation), {one.fingerprint for one in stored}, findings)
    return checked


def _analyses(facts: sqlite3.Connection, group: str, generation: int, findings: Findings) -> list[Analysed]:
    rows = facts.execute(
        "SELECT scope, fingerprint, detail_json FROM analysis_state "
        "WHERE exp_group_id = ? AND generation = ? AND stage = ? ORDER BY scope",
        (group, generation, STAGE),
    )
    found = []
    for scope, mark, text in rows.fetchall():
        try:
            detail = json.loads(text)
            found.append(
                Analysed(scope, mark, str(detail["analyzer_version"]), Analysis.model_validate(detail["settings"]))
            )
        except (ValueError, KeyError, TypeError, ValidationError):
            findings.cannot_check(f"the record of how {scope!r} was analysed can't be read", 1)
    return found


def _question(
    facts: sqlite3.Connection,
    here: tuple[str, int],
    one: Analysed,
    runs: Sequence[tables.Run],
    counts: Mapping[str, tables.RunCounts],
    dataset: tables.Dataset,
    drifts: Sequence[Drift],
    findings: Findings,
) -> Question | None:
    """What was analysed then, where it can be repeated now: same version, same facts."""
    n = _rows_of(facts, one.fingerprint)
    if one.version != ANALYZER_VERSION:
        findings.cannot_check(f"made by analyzer {one.version}, this is {ANALYZER_VERSION}: can't be checked", n)
        return None
    chosen = [run for run in runs if one.scope in ("*", run.run_id)]
    if not chosen:
        return None
    of_levels = level_differences(facts, *here)
    beside_canary, planned = answers_beside_canary(facts, *here), plan_of(facts, *here)
    for scored in (counts, {run_id: _all_scored(count) for run_id, count in counts.items()}):
        pending = sum(scored[run.run_id].pending for run in chosen)
        unscored = sum(max(0, scored[run.run_id].finished - scored[run.run_id].scores) for run in chosen)
        question = Question(
            chosen,
            scored,
            dataset,
            one.analysis,
            pending + unscored,
            drifts,
            of_levels,
            beside_canary,
            one.scope == "*",
            planned,
        )
        if fingerprint_of(facts, question) == one.fingerprint:
            return question
    findings.cannot_check("made before the newest facts or under other settings than recorded: run `kvt all`", n)
    return None


def _all_scored(count: tables.RunCounts) -> tables.RunCounts:
    return tables.RunCounts(
        count.planned, count.requests, count.responses, count.failures, count.try_series, count.finished
    )


def _jobs(
    db: Database,
    facts: sqlite3.Connection,
    here: tuple[str, int],
    runs: Sequence[tables.Run],
    counts: Mapping[str, tables.RunCounts],
    questions: Mapping[str, Question],
) -> list[Job]:
    full_of = {run.dataset_id: run.run_id for run in runs if run.is_baseline}
    jobs = []
    for run in runs:
        dataset, full = tables.dataset(facts, run.dataset_id), full_of.get(run.dataset_id)
        mark = score.score_fingerprint(dataset.metric, counts[run.run_id], counts[full] if full else None)
        complete = derived_rows.state(facts, *here, "score", run.run_id) == mark
        question = questions.get("*") or questions.get(run.run_id)
        rule = question.rule if question else CiRule("auto", 0.05)
        jobs.append(Job(db, run, full, dataset, question.bins if question else None, rule, complete))
    return jobs


def _read(facts: sqlite3.Connection, jobs: Sequence[Job], findings: Findings, progress: Report) -> dict[str, RunData]:
    rows = sum(_one(facts, "SELECT count(*) FROM requests WHERE run_id = ?", job.run.run_id) for job in jobs)

    def say(done: int) -> None:
        progress(f"scores of run {done} of {len(jobs)}")

    elsewhere = parallel.results(check_run, jobs, rows=rows, progress=say)
    read: dict[str, RunData] = {}
    for i, (job, done) in enumerate(zip(jobs, elsewhere, strict=True)):
        found, data = done or check_run(job)
        if done is None:
            say(i + 1)
        findings.merge(found)
        if data is not None:
            read[job.run.run_id] = data
    return read


def _compare(
    facts: sqlite3.Connection,
    here: tuple[str, int],
    one: Analysed,
    question: Question,
    read: Sequence[RunData],
    entries: pl.DataFrame,
    findings: Findings,
) -> None:
    """The rows that carry this analysis' fingerprint against the same analysis made again."""
    made = answer(question, read, entries)
    mark = {"fingerprint": one.fingerprint}
    for table, of_runs in (
        ("bin_stats", made.bin_stats),
        ("run_evidence", [as_columns(row) for row in made.run_evidence]),
    ):
        ids = [run.run_id for run in question.runs]
        stored = [row for run_id in ids for row in _stored(facts, table, "run_id = ?", run_id)]
        # A run that was analysed alone since is compared with that.
        alone = {row["run_id"] for row in stored if one.scope == "*" and _alone(facts, here, row)}
        stored = [row for row in stored if row["run_id"] not in alone]
        rows = [derived_rows.plain(row | mark) for row in of_runs if row["run_id"] not in alone]
        differences.compare(findings, table, derived_rows.RUN_TABLES[table], stored, rows)
    if made.group is None:
        return
    for table, keys in derived_rows.GROUP_TABLES.items():
        stored = _stored(facts, table, "exp_group_id = ? AND generation = ?", *here)
        rows = getattr(made.group, table)
        differences.compare(findings, table, keys, stored, [derived_rows.plain(row | mark) for row in rows])


def _alone(facts: sqlite3.Connection, here: tuple[str, int], row: Mapping[str, Any]) -> bool:
    return derived_rows.state(facts, *here, STAGE, str(row["run_id"])) == str(row["fingerprint"])


def _unjudged(facts: sqlite3.Connection, here: tuple[str, int], known: set[str], findings: Findings) -> None:
    """Rows whose fingerprint no record names: nothing says how they were made."""
    for table in ANALYSED:
        own = "run_id IN (SELECT run_id FROM runs WHERE exp_group_id = ? AND generation = ?)"
        where = own if table in derived_rows.RUN_TABLES else "exp_group_id = ? AND generation = ?"
        marks = facts.execute(f"SELECT fingerprint, count(*) FROM {table} WHERE {where} GROUP BY 1", here).fetchall()
        n = sum(rows for mark, rows in marks if mark not in known)
        findings.cannot_check(f"{table}: no record says how these rows were made", n)


def _unexplained(facts: sqlite3.Connection, findings: Findings) -> None:
    """Rows of groups that were never run."""
    for table, keys in derived_rows.GROUP_TABLES.items():
        orphans = "(exp_group_id, generation) NOT IN (SELECT exp_group_id, generation FROM experiments)"
        for row in _stored(facts, table, orphans):
            key = {name: row[name] for name in ("exp_group_id", "generation", *keys)}
            findings.add(Difference(table, key, "", "a row", None))


def _rows_of(facts: sqlite3.Connection, mark: str) -> int:
    return sum(_one(facts, f"SELECT count(*) FROM {table} WHERE fingerprint = ?", mark) for table in ANALYSED)


def _stored(facts: sqlite3.Connection, table: str, where: str, *values: Any) -> list[dict[str, Any]]:
    return differences.rows(facts.execute(f"SELECT * FROM {table} WHERE {where}", values))


def _one(facts: sqlite3.Connection, sql: str, *values: Any) -> int:
    return int(facts.execute(sql, values).fetchone()[0])
