"""Everything that charts and report say of one task of a group, read once from one database snapshot."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from analyzer.read import runs as tables
from analyzer.read.drift import Answers, group_drifts, level_differences
from analyzer.read.examples import rescored
from analyzer.read.group_connection import parts
from analyzer.read.group_tasks import GroupTask, group_tasks
from analyzer.read.level_setups import setup_differences
from analyzer.read.node_answers import NodeAnswers, node_answers
from analyzer.read.run_counts import RunCounts, run_counts
from analyzer.read.runs import Run
from analyzer.results.length_bins import Bin, length_bins
from analyzer.results.rows import ClientRow, SessionRow, Volume
from analyzer.results.telling_answers import MOST, MOST_OF_A_TASK, TellingAnswers, telling_answers
from analyzer.results.turns import TurnFigures, conversations_moved, read_turns
from analyzer.results.volumes import read_volumes
from analyzer.store.derived_rows import ANALYZER_VERSION, NOBODY, ScoredBy, scored_by
from analyzer.store.tables import BinStat, Comparison, Drop, Evidence, OutcomeChange, Verdict, columns
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.formulas.server_identity import Drift
from kvt_async.contract.vocabulary import CONSTRAINED, Role, Unit

Row = TypeVar("Row")

ALL = -1


@dataclass(frozen=True)
class Results:
    """What is stored of one task in one generation of an experiment group, in stable order. Of most use:

    runs: every level and its repeats; `full`, `controls` and `levels(series)` choose among them.
    stats: what a run did in a bin, by run_id and bin_idx (-1: all bins, each with the same weight); `stat(run)`.
    drops: a run against full cache in a bin, paired by example; `drop(run)`, `paired(series)`.
    verdicts: what the tests of a series allow to be said in a bin; `verdict(series)`.
    comparisons: two series at one budget. changes: what else changes with the budget.
    evidence: by run_id, whether the server applied the budget.
    progress: by run_id, how many requests are planned, answered, failed and pending.
    samples: answers of each example that count; n_samples: those that were asked for.
    drifts: where the server became another one meanwhile; differences: where levels had different servers.
    volumes: what each session moved, where it was asked for.

    Sessions, clients, snapshots, canaries, drifts, differences and volumes are those of the whole group. Before the
    first analysis the derived rows (stats, evidence, drops, verdicts, comparisons, changes) are empty.
    """

    group: str
    generation: int
    n_generations: int
    contract: dict[str, Any]
    contract_sha256: str
    datasets: list[dict[str, Any]]
    bins: list[Bin]
    runs: list[Run]
    stats: dict[tuple[str, int], BinStat]
    evidence: dict[str, Evidence]
    drops: list[Drop]
    verdicts: list[Verdict]
    comparisons: list[Comparison]
    progress: dict[str, RunCounts]
    clients: list[ClientRow]
    sessions: list[SessionRow]
    snapshots: list[dict[str, Any]]
    canaries: list[dict[str, Any]]
    drifts: list[Drift]
    differences: list[Drift]
    volumes: list[Volume]
    scorer_versions: list[str]
    analyzer_version: str | None = None  # that made the analysis; None: not stored
    other_metric: str | None = None  # that the analysis was made under; None: the task's own
    plugin_sha256: str | None = None  # of the file that defined that metric then; None: it is one of kvt's
    scored_by: ScoredBy = NOBODY
    setups: tuple[str, ...] = ()  # in what the servers of levels differ beside the budget
    task: str = ""  # its name in the group
    dataset_id: str = ""
    samples: int = 1
    n_samples: int = 1
    changes: list[OutcomeChange] = field(default_factory=list)
    beside_constrained: list[Comparison] = field(default_factory=list)  # constrained full and each level
    turns: list[TurnFigures] = field(default_factory=list)  # of conversations, where volumes were asked for
    nodes: tuple[NodeAnswers, ...] = ()  # the servers of shards of levels beside the baseline's
    telling: TellingAnswers | None = None  # changed answers to look at, where volumes were asked for
    n_moved: int = 0  # conversations whose turns went to different endpoints; there too

    @property
    def own_metric(self) -> str:
        """The task's own metric, of the contract."""
        return str(self.datasets[0]["metric"]) if self.datasets else ""

    @property
    def metric(self) -> str:
        """The metric of every score, accuracy and drop here."""
        return self.other_metric or self.own_metric

    @property
    def rescored(self) -> str:
        """Says that another metric than the task's own made the scores; empty where none did."""
        return rescored(self.other_metric, self.own_metric)

    @property
    def series(self) -> list[str]:
        """Series below full cache in the order of the config; the first is the headline."""
        seen = dict.fromkeys(r.series for r in self.runs if r.is_level)
        roles = {v.series: v.role for v in self.verdicts if v.bin_idx == ALL}
        return sorted(seen, key=lambda s: roles.get(s) != Role.CONFIRMATORY)

    @property
    def full(self) -> Run | None:
        return next((r for r in self.runs if r.is_full and r.repeat_idx == 0), None)

    @property
    def constrained(self) -> Run | None:
        """Full cache under the levels' other restrictions."""
        return next((r for r in self.runs if r.is_constrained), None)

    @property
    def controls(self) -> list[Run]:
        return [r for r in self.runs if r.is_full and r.repeat_idx > 0]

    @property
    def unit(self) -> str:
        """Unit of the budgets below full cache."""
        return next((r.kv_unit for r in self.runs if r.is_level), Unit.FRACTION)

    def unit_of(self, series: str) -> str:
        """Unit of a series' budgets."""
        return next((r.kv_unit for r in self.runs if r.series == series), self.unit)

    @property
    def pending(self) -> int:
        return sum(p.pending for p in self.progress.values())

    @property
    def requests(self) -> int:
        return sum(p.total for p in self.progress.values())

    @property
    def partial(self) -> bool:
        return self.pending > 0 or any(v.partial for v in self.verdicts)

    @property
    def prompts(self) -> PromptCounts:
        """What the server's counts say of all prompts; nothing where the analysis is older than the question."""
        return next((counts for v in self.verdicts if (counts := v.prompts)), PromptCounts())

    @property
    def overruling(self) -> Answers | None:
        """The sweep's answers, where they overrule a canary that doubted the budget."""
        for v in self.verdicts:
            if (answers := v.beside_canary) is not None:
                return answers if answers.overrule(v.asked.get("alpha", 0.05)) else None
        return None

    def levels(self, series: str) -> list[Run]:
        """Runs of a series, largest budget first."""
        return sorted(
            (r for r in self.runs if r.series == series and r.is_level),
            key=lambda r: -r.kv_budget,
        )

    def judged_levels(self, series: str) -> list[Run]:
        """Those of its levels that its verdict is about."""
        v = self.verdict(series)
        behind = [level["budget"] for level in v.left_out] if v else []
        return [run for run in self.levels(series) if run.kv_budget not in behind]

    def stat(self, run: Run | None, bin_idx: int = ALL) -> BinStat | None:
        return self.stats.get((run.run_id, bin_idx)) if run else None

    def verdict(self, series: str, bin_idx: int = ALL) -> Verdict | None:
        return next((v for v in self.verdicts if v.series == series and v.bin_idx == bin_idx), None)

    def drop(self, run: Run, bin_idx: int = ALL) -> Drop | None:
        return next((d for d in self.drops if d.run_id == run.run_id and d.bin_idx == bin_idx), None)

    def paired(self, series: str) -> list[tuple[float, Drop]]:
        """(budget, paired loss over all lengths) of a series' levels that are judged, largest budget first."""
        drops = ((run.kv_budget, self.drop(run)) for run in self.judged_levels(series))
        return [(budget, drop) for budget, drop in drops if drop is not None]

    def against_constrained(self, run: Run, bin_idx: int = ALL) -> Comparison | None:
        """A level beside full cache under its other restrictions; diff_mean is what it loses against that."""
        at = (run.series, run.kv_budget, bin_idx)
        return next((c for c in self.beside_constrained if (c.series_b, c.kv_budget, c.bin_idx) == at), None)

    def control_drops(self, bin_idx: int = ALL) -> list[Drop]:
        """Full cache against full cache, run again."""
        ids = {run.run_id for run in self.controls}
        return [d for d in self.drops if d.run_id in ids and d.bin_idx == bin_idx]

    def statuses(self, series: str) -> list[Evidence]:
        ids = [r.run_id for r in self.levels(series)]
        return [self.evidence[i] for i in ids if i in self.evidence]


_OF_GROUP = "WHERE exp_group_id=? AND generation=?"
_OF_TASK = f"{_OF_GROUP} AND dataset_id=?"
_OF_ITS_RUNS = f"WHERE run_id IN (SELECT run_id FROM runs {_OF_TASK})"
_OF_ITS_SESSIONS = f"WHERE session_id IN (SELECT session_id FROM sessions {_OF_GROUP})"
_CLIENTS = f"""FROM client_health h {_OF_ITS_SESSIONS} AND created_at = (SELECT max(created_at) FROM client_health i
    WHERE i.session_id = h.session_id) ORDER BY created_at, session_id"""
_SESSIONS = f"""FROM (SELECT s.*, e.ended_at, e.reason FROM sessions s LEFT JOIN session_ends e USING (session_id))
    {_OF_GROUP} ORDER BY started_at, session_id"""
_SNAPSHOTS = f"""SELECT DISTINCT phase, endpoint, identity_json FROM server_snapshots {_OF_ITS_SESSIONS}
    ORDER BY endpoint, phase DESC, identity_json"""
_CANARIES = f"""SELECT level, verdict, ifnull(detail_json ->> '$.when', 'prefill') AS judged_when FROM probes
    {_OF_ITS_SESSIONS} AND kind='canary' AND verdict IS NOT NULL ORDER BY created_at, n"""
_SCORERS = f"""SELECT DISTINCT s.scorer_version || ' · ' || s.metric FROM runs u JOIN scores s ON s.request_id =
    (SELECT q.request_id FROM requests q JOIN scores t USING (request_id) WHERE q.run_id = u.run_id LIMIT 1)
    {_OF_TASK} ORDER BY 1"""  # of one score per run: a run is scored by one scorer
_CONTRACTS = f"SELECT contract_json FROM task_contracts {_OF_TASK}"
_ANALYZED = f"SELECT detail_json FROM analysis_state {_OF_GROUP} AND stage='analyze' AND scope='*'"


def read_results(
    conn: sqlite3.Connection,
    group: str,
    *,
    task: str | None = None,
    dataset_id: str | None = None,
    volumes: bool = False,
) -> Results:
    """Read one task of the newest generation of `group`: the one of this name or dataset_id, or its only one.

    `volumes` (throughput and cost) reads every response: only the report needs it. Raises MissingPrerequisiteError
    where there is no such group or task, ConfigError where the group has several and none is named.
    """
    tasks = read_tasks(conn, group, volumes=volumes)
    name = task if task is not None else dataset_id
    if name is not None:
        return of_task(tasks, name)
    if len(tasks) > 1:
        raise ConfigError(
            f"the group {group!r} has {len(tasks)} tasks, and this is about one",
            do=f"Name one of them: {', '.join(each.task for each in tasks)}.",
        )
    return tasks[0]


def of_task(tasks: list[Results], name: str) -> Results:
    """The results of the task of this name or dataset_id. Raises MissingPrerequisiteError where there is none."""
    for task in tasks:
        if name in (task.task, task.dataset_id):
            return task
    raise MissingPrerequisiteError(
        f"the group has no task {name!r}", do=f"Its tasks: {', '.join(task.task for task in tasks)}."
    )


def read_tasks(conn: sqlite3.Connection, group: str, *, volumes: bool = False, telling: bool = True) -> list[Results]:
    """Read every task of the newest generation of `group`, in the group's order; one at least, without runs if need be.
    `telling`: with `volumes` also the answers that a report shows, which takes the scores of two levels and more.

    Raises MissingPrerequisiteError where there is no such group.
    """
    generations = conn.execute(
        "SELECT generation, contract_json, contract_sha256 FROM experiments WHERE exp_group_id=? ORDER BY generation",
        (group,),
    ).fetchall()
    if not generations:
        raise MissingPrerequisiteError(
            f"the database holds no experiment group {group!r}", do="Run `kvt sweep -c CONFIG` first."
        )
    generation, contract, sha = generations[-1]
    key = (group, generation)
    detail: dict[str, Any] = next((json.loads(text) for (text,) in conn.execute(_ANALYZED, key)), {})
    tasks = group_tasks(conn, group, generation) or [GroupTask("", "")]
    samples = {task.dataset_id: detail.get("samples", {}).get(task.dataset_id, task.samples) for task in tasks}
    progress = run_counts(conn, group, generation, samples)
    whole = Results(
        group=group,
        generation=generation,
        n_generations=len(generations),
        contract=json.loads(contract),
        contract_sha256=sha,
        datasets=[],
        bins=[],
        runs=tables.runs(conn, group, generation),
        stats={},
        evidence={},
        drops=[],
        verdicts=[],
        comparisons=[],
        progress=progress,
        clients=_rows(conn, ClientRow, _CLIENTS, key),
        sessions=_rows(conn, SessionRow, _SESSIONS, key),
        snapshots=_dicts(conn, _SNAPSHOTS, key),
        canaries=_dicts(conn, _CANARIES, key),
        drifts=group_drifts(conn, group, generation),
        differences=level_differences(conn, group, generation),
        setups=setup_differences(conn, group, generation),
        volumes=read_volumes(conn, key, sum(count.responses for count in progress.values())) if volumes else [],
        scorer_versions=[],
        analyzer_version=detail.get("analyzer_version"),
        other_metric=detail.get("settings", {}).get("metric"),
    )
    plugins = detail.get("plugins_sha256", {})
    results = [
        replace(_task_results(conn, whole, task, samples[task.dataset_id]), plugin_sha256=plugins.get(task.dataset_id))
        for task in tasks
    ]
    if not volumes:
        return results
    with_turns = [_with_turns(conn, task) for task in results]
    return with_telling(conn, with_turns) if telling else with_turns


def with_telling(conn: sqlite3.Connection, tasks: Sequence[Results]) -> list[Results]:
    """The tasks of a group, each with the answers that a report shows."""
    most = MOST if len(tasks) == 1 else MOST_OF_A_TASK
    return [replace(task, telling=telling_answers(conn, task, most)) for task in tasks]


def _with_turns(conn: sqlite3.Connection, task: Results) -> Results:
    """The same results, and what is stored of each turn of conversations."""
    run_ids = [run.run_id for run in task.runs]
    if not (turns := read_turns(conn, task.dataset_id, run_ids)):
        return task
    keeps_endpoints = task.contract.get("workload.reuse") == "turns"
    return replace(
        task, turns=turns, n_moved=conversations_moved(conn, task.dataset_id, run_ids) if keeps_endpoints else 0
    )


def _task_results(conn: sqlite3.Connection, whole: Results, task: GroupTask, samples: int) -> Results:
    """What is stored of one task, beside what is stored of the whole group."""
    key, own = (whole.group, whole.generation, task.dataset_id), (task.dataset_id,)
    contract: dict[str, Any] = next((json.loads(text) for (text,) in conn.execute(_CONTRACTS, key)), {})
    runs = sorted(
        (run for run in whole.runs if run.dataset_id == task.dataset_id),
        key=lambda run: (run.level_idx, run.repeat_idx, run.series, -run.kv_budget, run.run_id),
    )

    def rows(kind: type[Row], source: str) -> list[Row]:
        return _rows(conn, kind, source, key)

    compared = rows(Comparison, f"FROM comparisons {_OF_TASK} ORDER BY series_a, series_b, kv_budget DESC, bin_idx")
    return replace(
        whole,
        contract=whole.contract | contract,
        datasets=_dicts(conn, "SELECT * FROM datasets WHERE dataset_id=?", own),
        bins=length_bins(conn, task.dataset_id),
        runs=runs,
        stats={(s.run_id, s.bin_idx): s for s in rows(BinStat, f"FROM bin_stats {_OF_ITS_RUNS}")},
        evidence={e.run_id: e for e in rows(Evidence, f"FROM run_evidence {_OF_ITS_RUNS}")},
        drops=rows(Drop, f"FROM budget_stats {_OF_TASK} ORDER BY series, kv_budget DESC, repeat_idx, bin_idx"),
        verdicts=rows(Verdict, f"FROM transition_summary {_OF_TASK} ORDER BY series, bin_idx"),
        comparisons=[c for c in compared if c.series_a != CONSTRAINED],
        beside_constrained=[c for c in compared if c.series_a == CONSTRAINED],
        progress={run.run_id: whole.progress[run.run_id] for run in runs},
        scorer_versions=sorted({version for part in parts(conn) for (version,) in part.execute(_SCORERS, key)}),
        scored_by=scored_by(conn, whole.group, whole.generation, runs[0].run_id) if runs else NOBODY,
        task=task.name,
        dataset_id=task.dataset_id,
        samples=samples,
        n_samples=task.samples,
        nodes=node_answers(conn, *key),
        changes=rows(
            OutcomeChange, f"FROM outcome_changes {_OF_TASK} ORDER BY series, kv_budget DESC, repeat_idx, measure"
        ),
    )


def refuse_older(results: Results) -> None:
    """Raise MissingPrerequisiteError where another version of the analyzer made the analysis: sentences and alarms of
    this one would stand on figures and rules of that one. So too where the answers were scored by another metric since.
    """
    if results.analyzer_version not in (None, ANALYZER_VERSION):
        raise MissingPrerequisiteError(
            f"analyzer {results.analyzer_version} made the stored analysis, this is {ANALYZER_VERSION}",
            where=results.group,
            do="Run `kvt all -c CONFIG`: it scores and analyses the stored answers again, and sends nothing.",
        )
    by = results.scored_by
    since = {v.partition(" · ")[2] for v in results.scorer_versions} - {results.metric}
    if by.metric is not None and by.sha256 != results.plugin_sha256:
        since.add(f"{by.metric} of {by.file}" if by.file else by.metric)
    if results.analyzer_version is not None and since:
        raise MissingPrerequisiteError(
            f"the stored analysis is of the metric {results.metric}; answers were scored by {', '.join(since)} since",
            where=results.group,
            do="Run `kvt all -c CONFIG`, with --metric NAME for another metric than the task's own.",
        )


def _rows(conn: sqlite3.Connection, kind: type[Row], source: str, key: tuple[Any, ...]) -> list[Row]:
    names = ", ".join(f'"{name}"' for name in columns(kind))
    return [kind(*row) for row in conn.execute(f"SELECT {names} {source}", key)]


def _dicts(conn: sqlite3.Connection, sql: str, key: tuple[Any, ...]) -> list[dict[str, Any]]:
    cursor = conn.execute(sql, key)
    names = [c[0] for c in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
