"""The tasks of a generation: their names, data sets, looks, and how many answers are asked of each example."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from kvt_async.contract.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GroupTask:
    """One task of a generation, which is one data set.

    look: 1; more where it was added after an analysis of the generation. samples: answers planned of each example.
    """

    name: str
    dataset_id: str
    look: int = 1
    samples: int = 1


# In the order in which they were named; those of one config have one time, and their runs the config's order.
_STATED = """
SELECT c.task, c.dataset_id, c.look FROM task_contracts c WHERE c.exp_group_id = :group AND c.generation = :generation
ORDER BY c.created_at, ifnull((SELECT min(u.rowid) FROM runs u WHERE u.exp_group_id = c.exp_group_id
    AND u.generation = c.generation AND u.dataset_id = c.dataset_id), 9e18), c.task"""
# Runs of a data set that no contract names: databases before schema 3.
_OF_RUNS = """
SELECT d.task, d.dataset_id, 1 FROM datasets d JOIN (SELECT dataset_id, min(rowid) AS first FROM runs
    WHERE exp_group_id = :group AND generation = :generation GROUP BY 1) u USING (dataset_id) ORDER BY u.first"""
_SAMPLES = """
SELECT dataset_id, max(samples) FROM sample_plans WHERE exp_group_id = :group AND generation = :generation GROUP BY 1"""


def group_tasks(conn: sqlite3.Connection, exp_group_id: str, generation: int) -> list[GroupTask]:
    """Every task of a generation, in the order in which they were named; names are unique."""
    key = {"group": exp_group_id, "generation": generation}
    samples = dict(conn.execute(_SAMPLES, key).fetchall())
    tasks: dict[str, GroupTask] = {}
    for name, dataset_id, look in (*conn.execute(_STATED, key), *conn.execute(_OF_RUNS, key)):
        if dataset_id not in tasks:
            taken = name in {task.name for task in tasks.values()}
            tasks[dataset_id] = GroupTask(dataset_id if taken else name, dataset_id, look, samples.get(dataset_id, 1))
    return list(tasks.values())


def chosen_tasks(
    tasks: Sequence[GroupTask], names: Sequence[str] | None, *, where: str = "analysis.tasks"
) -> list[GroupTask]:
    """Those of these names, in the group's order; all where None. ConfigError for a name that the group lacks, which
    came from `where`."""
    if names is None:
        return list(tasks)
    known = {task.name for task in tasks}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"the group has no task {unknown[0]!r}",
            where=where,
            do=f"Its tasks: {', '.join(sorted(known))}.",
        )
    return [task for task in tasks if task.name in names]
