"""How far the levels of a sweep are, task by task."""

from kvt_async.contract.labels import level_label
from kvt_async.contract.settings import Settings
from kvt_async.records import Json
from kvt_async.store.reader import Reader

_TASKS = """SELECT t.task, t.dataset_id, (SELECT count(*) FROM manifest_entries e WHERE e.dataset_id = t.dataset_id)
    * ifnull((SELECT max(s.samples) FROM sample_plans s WHERE s.exp_group_id = t.exp_group_id
    AND s.generation = t.generation AND s.dataset_id = t.dataset_id), 1) AS planned
    FROM task_contracts t WHERE t.exp_group_id = ? AND t.generation = ? ORDER BY t.created_at, t.rowid"""
_LEVELS = """SELECT run_id, series, kv_budget, kv_unit, is_full, repeat_idx FROM runs
    WHERE exp_group_id = ? AND generation = ? AND dataset_id = ? ORDER BY repeat_idx, level_idx, created_at"""


def level_status(reader: Reader, settings: Settings, generation: int) -> list[Json]:
    """Counts of every task at every level of the generation; all of its manifest is planned, with all its answers."""
    group, levels = settings.experiment.exp_group_id, []
    tasks = reader.rows(_TASKS, group, generation)
    for task in tasks:
        for run in reader.rows(_LEVELS, group, generation, task["dataset_id"]):
            counts, planned = reader.counts(run["run_id"]), task["planned"]
            is_full, nth = bool(run["is_full"]), run["repeat_idx"]
            name = level_label(run["series"], run["kv_budget"], run["kv_unit"], is_full=is_full, repeat_idx=nth)
            levels.append(
                {
                    **({"task": task["task"]} if len(tasks) > 1 else {}),
                    "level": name,
                    "run_id": run["run_id"],
                    "planned": planned,
                    **counts,
                    "pending": planned - counts["responses"] - counts["failures"],
                }
            )
    return levels
