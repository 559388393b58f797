"""How far the levels of a sweep are, task by task."""

import orjson

from kvt_async.contract.labels import level_label
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.shard import Shard, part_of
from kvt_async.contract.vocabulary import NODE_REPEATS
from kvt_async.records import Json
from kvt_async.store.reader import Reader
from kvt_async.sweep.shard_part import ShardPart, node_entries

_TASKS = """SELECT t.task, t.dataset_id, (SELECT count(*) FROM manifest_entries e WHERE e.dataset_id = t.dataset_id)
    AS entries, ifnull((SELECT max(s.samples) FROM sample_plans s WHERE s.exp_group_id = t.exp_group_id
    AND s.generation = t.generation AND s.dataset_id = t.dataset_id), 1) AS samples, d.selection_json
    FROM task_contracts t JOIN datasets d USING (dataset_id) WHERE t.exp_group_id = ? AND t.generation = ?
    ORDER BY t.created_at, t.rowid"""
_LEVELS = """SELECT run_id, series, kv_budget, kv_unit, is_full, repeat_idx FROM runs
    WHERE exp_group_id = ? AND generation = ? AND dataset_id = ? ORDER BY repeat_idx, level_idx, created_at"""


def level_status(reader: Reader, settings: Settings, generation: int) -> list[Json]:
    """Counts of every task at every level of the generation. All of its manifest is planned, with all its answers; in
    the database of a shard the shard's part, and `of` says how many of all."""
    group, levels = settings.experiment.exp_group_id, []
    tasks = reader.rows(_TASKS, group, generation)
    part = part_of(reader.db)
    for task in tasks:
        dataset_id, samples = task["dataset_id"], task["samples"]
        runs = reader.rows(_LEVELS, group, generation, dataset_id)
        n_own = task["entries"]
        if part is not None and not any(run["repeat_idx"] > NODE_REPEATS for run in runs):
            seed = orjson.loads(task["selection_json"]).get("seed", 0)
            n_own = ShardPart(Shard(*part), (), len(tasks)).entries(reader, dataset_id, seed).count(1)
        for run in runs:
            counts, n = reader.counts(run["run_id"]), n_own
            is_full, nth = bool(run["is_full"]), run["repeat_idx"]
            if nth > NODE_REPEATS:
                n = len(node_entries(reader, dataset_id, len(tasks), 0))
            name = level_label(run["series"], run["kv_budget"], run["kv_unit"], is_full=is_full, repeat_idx=nth)
            of_all = {} if part is None else {"of": (n if nth > NODE_REPEATS else task["entries"]) * samples}
            levels.append(
                {
                    **({"task": task["task"]} if len(tasks) > 1 else {}),
                    "level": name,
                    "run_id": run["run_id"],
                    "planned": n * samples,
                    **of_all,
                    **counts,
                    "pending": n * samples - counts["responses"] - counts["failures"],
                }
            )
    return levels
