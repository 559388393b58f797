"""`kvt verify`: every derived row made again from the facts and compared with what is stored. Nothing is written.

Scores are recomputed run by run into a temporary table that lies over the stored one, so that the analysis that follows
reads recomputed scores only: an edited score can't vouch for the mean that was made of it. The analysis is repeated
under its own stored settings and seed. Rows that another version of scorer or analyzer made can't be judged.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from analyzer import parallel
from analyzer.read import examples
from analyzer.read import runs as tables
from analyzer.read.declared_plan import DeclaredPlan, plan_of
from analyzer.read.group_tasks import group_tasks
from analyzer.read.run_counts import RunCounts, run_counts
from analyzer.read.snapshot import held
from analyzer.scoring import score
from analyzer.scoring.runs_to_score import score_fingerprint
from analyzer.store import derived_rows
from analyzer.store.derived_rows import ANALYZER_VERSION
from analyzer.store.tables import as_columns
from analyzer.summarise.analyze import Derived, derive, task_data
from analyzer.summarise.question import (
    STAGE,
    Question,
    ServerHistory,
    chosen_names,
    fingerprint_of,
    run_servers,
    task_questions,
    unrun_names,
)
from analyzer.summarise.run_data import RunData
from analyzer.verify import differences
from analyzer.verify.bench_rows import verify_bench
from analyzer.verify.differences import Difference, Findings
from analyzer.verify.integrity import check_drift, check_facts
from analyzer.verify.rescoring import Database, RunToCheck, check_run
from analyzer.verify.stored_analyses import Analysed, stored_analyses
from kvt_async.contract.damage import has_wal
from kvt_async.contract.errors import GuardError
from kvt_async.contract.formulas.metric_needs import is_known
from kvt_async.contract.older_schemas import lacks_columns

Report = Callable[[str], None]

_SCORES_OF = "SELECT count(*) FROM requests JOIN scores USING (request_id) WHERE run_id = ?"
ANALYSED = (*derived_rows.RUN_TABLES, *derived_rows.GROUP_TABLES)


@dataclass
class Checked:
    """One generation of a group. `content`: hash of the rows that its analysis left; None: there are none. `part`: of a
    group in several databases, which one."""

    exp_group_id: str
    generation: int
    content: str | None = None
    part: str = ""
    findings: Findings = field(default_factory=Findings)


def verify(db: Path, data_dir: Path | None = None, progress: Report = lambda _: None) -> tuple[Findings, list[Checked]]:
    """Findings about the facts, and about the derived rows of every generation of every group.

    `data_dir`: where the manifests lie, if they are at hand.

    Raises MissingPrerequisiteError where there is no database, GuardError where it was written to meanwhile.
    """
    with _still(db) as file, closing(held(file.connect())) as facts:
        of_facts = check_facts(facts, data_dir, progress)
        generations = [
            _checked(file, facts, group, generation, progress)
            for group, generation in facts.execute(
                "SELECT exp_group_id, generation FROM experiments ORDER BY exp_group_id, generation"
            ).fetchall()
        ]
        _unexplained(facts, of_facts)
    progress("")
    return of_facts, generations


def verify_facts(db: Path, data_dir: Path | None = None, progress: Report = lambda _: None) -> Findings:
    """Findings about the facts alone. Raises as `verify` does."""
    with _still(db) as file, closing(held(file.connect())) as facts:
        return check_facts(facts, data_dir, progress)


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


@dataclass(frozen=True)
class Generation:
    """One generation of a group with everything that is stored of it, and the findings that its check adds to."""

    db: Database
    facts: sqlite3.Connection
    exp_group_id: str
    generation: int
    runs: Sequence[tables.Run]
    counts: Mapping[str, RunCounts]
    analyses: Sequence[Analysed]
    findings: Findings

    @property
    def key(self) -> tuple[str, int]:
        return self.exp_group_id, self.generation

    @cached_property
    def server(self) -> ServerHistory:
        return ServerHistory.of(self.facts, *self.key)

    @cached_property
    def planned(self) -> DeclaredPlan:
        return plan_of(self.facts, *self.key)

    def lacking(self, run: tables.Run) -> str:
        """Says that a run was scored by a plugin's metric which is not here as it was; empty: nothing is lacking."""
        by = derived_rows.scored_by(self.facts, *self.key, run.run_id)
        metric = by.metric or examples.dataset(self.facts, run.dataset_id).own_metric
        if is_known(metric) and (by.metric is None or score.plugin_sha256(metric) == by.sha256):
            return ""
        return f"made with the metric {metric} of {by.file or 'a plugin'}, which is not loaded: can't be checked"

    @cached_property
    def whole(self) -> Analysed | None:
        """The analysis of all its runs; None: none is recorded."""
        return next((analysed for analysed in self.analyses if analysed.scope == "*"), None)

    @cached_property
    def questions(self) -> dict[str, Question]:
        """What was analysed, by scope, of the analyses that can be repeated now: same version, same facts."""
        questions = ((analysed.scope, self._question(analysed)) for analysed in self.analyses)
        return {scope: question for scope, question in questions if question is not None}

    def _question(self, analysed: Analysed) -> Question | None:
        n = sum(
            _count(self.facts, f"SELECT count(*) FROM {table} WHERE fingerprint = ?", analysed.fingerprint)
            for table in ANALYSED
        )
        if analysed.version != ANALYZER_VERSION:
            made_by = f"made by analyzer {analysed.version}, this is {ANALYZER_VERSION}: can't be checked"
            self.findings.cannot_check(made_by, n)
            return None
        chosen = [run for run in self.runs if analysed.scope in ("*", run.run_id)]
        if not chosen:
            return None
        if lacking := next(filter(None, map(self.lacking, chosen)), ""):
            self.findings.cannot_check(lacking, n)
            return None
        stored = group_tasks(self.facts, *self.key)
        tasks = task_questions(
            self.facts,
            stored,
            chosen,
            analysed.analysis.metric,
            lambda task: analysed.samples.get(task.dataset_id, task.samples),
        )
        samples = {task.dataset.dataset_id: task.samples for task in tasks}
        now = run_counts(self.facts, *self.key, samples, kept=False)
        all_scored = {run_id: replace(count, scores=count.finished, refused=0) for run_id, count in now.items()}
        for counts in (now, all_scored):
            question = Question(
                exp_group_id=self.exp_group_id,
                generation=self.generation,
                tasks=tasks,
                counts=counts,
                analysis=analysed.analysis,
                server=self.server,
                servers=run_servers(self.facts, chosen, self.server, analysed.analysis.alpha),
                planned=self.planned,
                chosen=chosen_names(self.facts, *self.key, analysed.analysis),
                unrun=unrun_names(stored, self.runs) if analysed.scope == "*" else (),
                whole=analysed.scope == "*",
            )
            if fingerprint_of(question) == analysed.fingerprint:
                return question
        why = "made before the newest facts or under other settings than recorded: run `kvt all`"
        self.findings.cannot_check(why, n)
        return None

    def stored(self, table: str) -> list[dict[str, Any]]:
        """The rows that a table of groups holds of this generation."""
        return _stored(self.facts, table, "exp_group_id = ? AND generation = ?", *self.key)


def _checked(db: Database, facts: sqlite3.Connection, exp_group_id: str, generation: int, progress: Report) -> Checked:
    checked = Checked(exp_group_id, generation)
    findings = checked.findings
    runs = tables.runs(facts, exp_group_id, generation)
    if not runs:
        return checked
    if tables.benched(facts, exp_group_id):
        progress(f"{exp_group_id}: the stages of a bench")
        checked.content = verify_bench(db, facts, exp_group_id, generation, findings)
        return checked
    counts = run_counts(facts, exp_group_id, generation, kept=False)
    analyses = stored_analyses(facts, exp_group_id, generation, findings)
    if analyses and not any(lacks_columns(facts, table) for table in derived_rows.GROUP_TABLES):
        checked.content = derived_rows.content(facts, exp_group_id, generation, "*")["content"]
    group = Generation(db, facts, exp_group_id, generation, runs, counts, analyses, findings)
    questions = group.questions
    if group.whole is not None:
        own = group.whole.analysis
        scored = [examples.dataset(facts, i).scored_by(own.metric) for i in dict.fromkeys(r.dataset_id for r in runs)]
        findings.notes += dict.fromkeys(dataset.metric_sentence for dataset in scored if dataset.other_metric)
        made_under = f"alpha {own.alpha:g}, margin {own.margin:g}, {own.resamples:,} resamples, seed {own.seed}"
        findings.notes.append(f"analysed by analyzer {group.whole.version} under {made_under}")
    allowed = group.whole is not None and group.whole.analysis.allow_drift
    findings.merge(check_drift(facts, exp_group_id, generation, allowed=allowed))
    read = _rescored(group, progress)
    for analysed in analyses:
        if (question := questions.get(analysed.scope)) is not None:
            progress(f"{exp_group_id}: the analysis of {len(question.runs)} runs")
            tasks = [
                task_data(
                    facts,
                    question,
                    task,
                    examples.entries(facts, task.dataset.dataset_id),
                    [read[run.run_id] for run in task.runs],
                )
                for task in question.tasks
            ]
            _compare(group, analysed, question, derive(question, tasks))
    if "*" not in questions:  # else every row was compared with that analysis
        _unjudged(group)
    return checked


def _rescored(group: Generation, progress: Report) -> dict[str, RunData]:
    """Every run scored again and read from those scores; a run without an analysis to repeat is only scored."""
    tasks = list(_tasks(group))
    rows = sum(_count(group.facts, "SELECT count(*) FROM requests WHERE run_id = ?", task.run.run_id) for task in tasks)

    def say(done: int) -> None:
        progress(f"scores of run {done} of {len(tasks)}")

    elsewhere = parallel.results(check_run, tasks, rows=rows, progress=say)
    read: dict[str, RunData] = {}
    for i, (task, done) in enumerate(zip(tasks, elsewhere, strict=True)):
        findings, data = done or check_run(task)
        if done is None:
            say(i + 1)
        group.findings.merge(findings)
        if data is not None:
            read[task.run.run_id] = data
    return read


def _tasks(group: Generation) -> Iterator[RunToCheck]:
    full_of = {run.dataset_id: run.run_id for run in group.runs if run.is_baseline}
    for run in group.runs:
        if lacking := group.lacking(run):
            group.findings.cannot_check(lacking, _count(group.facts, _SCORES_OF, run.run_id))
            continue
        metric = derived_rows.scored_by(group.facts, *group.key, run.run_id).metric
        dataset, full = examples.dataset(group.facts, run.dataset_id).scored_by(metric), full_of.get(run.dataset_id)
        mark = score_fingerprint(dataset.metric, group.counts[run.run_id], group.counts[full] if full else None)
        complete = derived_rows.state(group.facts, *group.key, "score", run.run_id) == mark
        question = group.questions.get("*") or group.questions.get(run.run_id)
        asked = next((task for task in question.tasks if run in task.runs), None) if question else None
        reading = question.reading_of(asked, run) if question and asked else None
        yield RunToCheck(group.db, run, full, dataset, reading, complete)


def _compare(group: Generation, analysed: Analysed, question: Question, made: Derived) -> None:
    """The rows that carry this analysis' fingerprint against the same analysis made again."""
    findings, mark = group.findings, analysed.fingerprint
    for table, rows in made.of_runs.items():
        stored = [row for run in question.runs for row in _stored(group.facts, table, "run_id = ?", run.run_id)]
        # A run that was analysed alone since is compared with that.
        alone = {row["run_id"] for row in stored if question.whole and _is_analysed_alone(group, row)}
        stored = [row for row in stored if row["run_id"] not in alone]
        plain = [derived_rows.plain(as_columns(row, fingerprint=mark)) for row in rows if row.run_id not in alone]
        differences.compare(findings, table, derived_rows.RUN_TABLES[table], stored, plain)
    for table, rows_of_group in made.of_group(fingerprint=mark).items() if question.whole else ():
        plain = [derived_rows.plain(row) for row in rows_of_group]
        differences.compare(findings, table, derived_rows.GROUP_TABLES[table], group.stored(table), plain)


def _is_analysed_alone(group: Generation, row: Mapping[str, Any]) -> bool:
    return derived_rows.state(group.facts, *group.key, STAGE, str(row["run_id"])) == str(row["fingerprint"])


def _unjudged(group: Generation) -> None:
    """Rows whose fingerprint no record names: nothing says how they were made."""
    recorded = {analysed.fingerprint for analysed in group.analyses}
    for table in ANALYSED:
        of_runs = "run_id IN (SELECT run_id FROM runs WHERE exp_group_id = ? AND generation = ?)"
        where = of_runs if table in derived_rows.RUN_TABLES else "exp_group_id = ? AND generation = ?"
        counts = group.facts.execute(
            f"SELECT fingerprint, count(*) FROM {table} WHERE {where} GROUP BY 1", group.key
        ).fetchall()
        n = sum(rows for mark, rows in counts if mark not in recorded)
        group.findings.cannot_check(f"{table}: no record says how these rows were made", n)


def _unexplained(facts: sqlite3.Connection, findings: Findings) -> None:
    """Rows of groups that were never run."""
    for table, keys in derived_rows.GROUP_TABLES.items():
        orphans = "(exp_group_id, generation) NOT IN (SELECT exp_group_id, generation FROM experiments)"
        for row in _stored(facts, table, orphans):
            key = {name: row[name] for name in ("exp_group_id", "generation", *keys)}
            findings.add(Difference(table, key, "", "a row", None))


def _stored(facts: sqlite3.Connection, table: str, where: str, *values: Any) -> list[dict[str, Any]]:
    return differences.rows(facts.execute(f"SELECT * FROM {table} WHERE {where}", values))


def _count(facts: sqlite3.Connection, sql: str, *values: Any) -> int:
    return int(facts.execute(sql, values).fetchone()[0])
