"""How far the levels of a sweep are."""

from kvt_async.contract.labels import level_label
from kvt_async.contract.settings import Settings
from kvt_async.records import Json
from kvt_async.store.reader import Reader

_LEVELS = """SELECT run_id, series, kv_budget, kv_unit, is_full, repeat_idx, dataset_id FROM runs
    WHERE exp_group_id = ? AND generation = ? ORDER BY repeat_idx, level_idx, created_at"""


def level_status(reader: Reader, settings: Settings, generation: int) -> list[Json]:
    """Counts of every level of the generation; all of its manifest is planned."""
    levels = []
    for run in reader.rows(_LEVELS, settings.experiment.exp_group_id, generation):
        planned = reader.value("SELECT count(*) FROM manifest_entries WHERE dataset_id = ?", run["dataset_id"])
        counts = reader.counts(run["run_id"])
        is_full, nth = bool(run["is_full"]), run["repeat_idx"]
        name = level_label(run["series"], run["kv_budget"], run["kv_unit"], is_full=is_full, repeat_idx=nth)
        pending = planned - counts["responses"] - counts["failures"]
        levels.append({"level": name, "run_id": run["run_id"], "planned": planned, **counts, "pending": pending})
    return levels
