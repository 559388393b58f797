"""Facts: the groups, generations and runs of a database. Frames of requests: outcomes.py; of examples: examples.py."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from analyzer.read.group_connection import parts
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.settings_kv import cuts_prompts, is_label
from kvt_async.contract.vocabulary import FULL, NODE_REPEATS, When


@dataclass(frozen=True, slots=True)
class Run:
    """A row of `runs`: one level (a series at one budget) and repeat."""

    run_id: str
    dataset_id: str
    series: str
    kv_policy: str
    kv_budget: float
    kv_unit: str
    kv_mode: str
    kv_apply: str
    is_full: bool
    repeat_idx: int
    level_idx: int
    model_name: str = ""
    base_url: str = ""
    engine_name: str = ""
    kv_params_json: str = "{}"
    decoding_json: str = "{}"
    kv_when: str = When.PREFILL.value

    @property
    def decodes(self) -> bool:
        """Whether its policy evicts while the answer is generated, be it alone or after prefill too."""
        return self.kv_when != When.PREFILL

    @property
    def is_baseline(self) -> bool:
        return self.is_full and self.repeat_idx == 0

    @property
    def is_constrained(self) -> bool:
        """Whether it is full cache under the other restrictions of the levels (kv.constrained): nobody's baseline."""
        return self.kv_policy == FULL and not self.is_full

    @property
    def is_level(self) -> bool:
        """Whether a budget was applied: neither full cache, whatever its restrictions, nor a repeat."""
        return not self.is_full and self.repeat_idx == 0 and not self.is_constrained

    @property
    def cuts_prompts(self) -> bool:
        """Whether its prompts were cut before they were sent, in place of a cache."""
        return cuts_prompts(self.kv_policy)

    @property
    def is_label(self) -> bool:
        """Whether the server was told nothing of its budget, which is a label alone."""
        return is_label(self.kv_apply) and not self.cuts_prompts


def newest_group(conn: sqlite3.Connection) -> tuple[str, int, str]:
    """exp_group_id, generation and contract_json of the generation created last. MissingPrerequisiteError: none."""
    row = conn.execute(
        "SELECT exp_group_id, generation, contract_json FROM experiments ORDER BY created_at DESC, rowid DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise MissingPrerequisiteError("nothing was run in this database", do="Run `kvt sweep -c CONFIG` first.")
    return row[0], row[1], row[2]


def evidence(conn: sqlite3.Connection) -> dict[str, str]:
    """Stored evidence status of every run that was analysed."""
    return dict(conn.execute("SELECT run_id, status FROM run_evidence").fetchall())


def scorer_versions(conn: sqlite3.Connection) -> set[str]:
    return {row[0] for part in parts(conn) for row in part.execute("SELECT DISTINCT scorer_version FROM scores")}


def baseline_id(conn: sqlite3.Connection, run: Run) -> str | None:
    """The run of full cache that a run is compared with; itself, where it is that; None: the group has none yet."""
    row = conn.execute(
        "SELECT b.run_id FROM runs r JOIN runs b ON b.exp_group_id = r.exp_group_id AND b.generation = r.generation "
        "AND b.dataset_id = r.dataset_id AND b.is_full = 1 AND b.repeat_idx = 0 WHERE r.run_id = ?",
        (run.run_id,),
    ).fetchone()
    return None if row is None else str(row[0])


def metric_of_scores(conn: sqlite3.Connection, run_id: str) -> str | None:
    """The metric of a run's scores: one scores them all. None: it has no scores."""
    sql = "SELECT s.metric FROM requests r JOIN scores s ON s.request_id = r.request_id WHERE r.run_id = ? LIMIT 1"
    metrics = (row[0] for part in parts(conn) for row in part.execute(sql, (run_id,)))
    return next(metrics, None)


def analysed_version(conn: sqlite3.Connection, exp_group_id: str) -> int:
    """Version of the manifest that this group was last analysed with; 0: not analysed."""
    row = conn.execute(
        "SELECT max(m.version) FROM runs u JOIN manifests m ON m.dataset_id = u.dataset_id "
        "JOIN bin_stats b ON b.run_id = u.run_id AND b.bin_idx = -1 "
        "WHERE u.exp_group_id = ? AND u.is_full AND b.n >= m.n_entries",
        (exp_group_id,),
    ).fetchone()
    return row[0] or 0


def newest_generation(conn: sqlite3.Connection, exp_group_id: str, generation: int | None = None) -> int:
    """The generation asked for, or the newest. MissingPrerequisiteError when the group has no runs (of it) here."""
    rows = conn.execute("SELECT generation FROM runs WHERE exp_group_id = ? GROUP BY 1", (exp_group_id,)).fetchall()
    generations = sorted(row[0] for row in rows)
    if generations and (generation is None or generation in generations):
        return int(generations[-1] if generation is None else generation)
    groups = [row[0] for row in conn.execute("SELECT DISTINCT exp_group_id FROM runs ORDER BY 1")]
    what = f"experiment group {exp_group_id!r} has no runs here"
    if generations:
        what = f"experiment group {exp_group_id!r} has no generation {generation}; there are {generations}"
    raise MissingPrerequisiteError(
        what + (f"; this database holds {', '.join(groups)}" if groups and not generations else ""),
        do="Run `kvt sweep -c CONFIG` first.",
    )


def runs(conn: sqlite3.Connection, exp_group_id: str, generation: int) -> list[Run]:
    """All runs of one generation, in the order of the config, repeats last, but those that only compare the servers of
    shards: analyzer/read/node_answers.py.

    A series is one curve, and a curve has one unit: of budgets in several, those in another unit than the first are a
    series of their own, `snapkv/aware unit=tokens`.
    """
    rows = conn.execute(
        f"SELECT {', '.join(field.name for field in fields(Run))} FROM runs WHERE exp_group_id = ? AND generation = ? "
        "AND repeat_idx <= ? ORDER BY repeat_idx, level_idx, series, kv_budget DESC, run_id",
        (exp_group_id, generation, NODE_REPEATS),
    )
    stored = [replace(run, is_full=bool(run.is_full)) for run in (Run(*row) for row in rows)]
    unit_of: dict[str, str] = {}
    return [
        run
        if run.kv_unit == unit_of.setdefault(run.series, run.kv_unit)
        else replace(run, series=f"{run.series} unit={run.kv_unit}")
        for run in stored
    ]


def benched(conn: sqlite3.Connection, exp_group_id: str) -> bool:
    """Whether the group's runs are stages of `kvt bench`."""
    has_stages = conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'bench_stages'").fetchone()
    stage = "SELECT 1 FROM bench_stages JOIN runs USING (run_id) WHERE exp_group_id = ? LIMIT 1"
    return bool(has_stages and conn.execute(stage, (exp_group_id,)).fetchone())


def find_run(all_runs: Sequence[Run], run_id: str) -> Run:
    for run in all_runs:
        if run.run_id == run_id:
            return run
    raise MissingPrerequisiteError(
        f"there is no run {run_id!r} in this group", do=f"Runs: {', '.join(run.run_id for run in all_runs)}"
    )
