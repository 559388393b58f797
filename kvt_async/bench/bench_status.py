"""How far the stages of a bench are, and which of the config have not begun."""

import orjson

from kvt_async.bench.ladder import Done, Next, ahead
from kvt_async.bench.load_steps import stored_load
from kvt_async.bench.request_counts import wanted
from kvt_async.bench.stage import bench_levels
from kvt_async.bench.stage_figures import stage_figures
from kvt_async.bench.stage_throughput import stage_throughput
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.settings import Settings
from kvt_async.records import Json
from kvt_async.store.reader import Reader

_STAGES = """
SELECT s.*, EXISTS (SELECT 1 FROM bench_window_ends e WHERE e.run_id = s.run_id AND e.reason = 'stop_rule') AS cut,
       u.repeat_idx, count(b.request_id) AS requests,
       count(p.request_id) AS responses, count(g.request_id) AS failures
FROM bench_stages s JOIN runs u USING (run_id) JOIN requests r USING (run_id)
LEFT JOIN bench_arrivals b ON b.request_id = r.request_id AND b.phase = 'measured'
LEFT JOIN responses p ON p.request_id = b.request_id
LEFT JOIN (SELECT DISTINCT request_id FROM give_ups) g ON g.request_id = b.request_id AND p.request_id IS NULL
WHERE u.exp_group_id = ? AND u.generation = ? GROUP BY s.run_id ORDER BY s.stage_idx
"""


def is_benched(reader: Reader, settings: Settings) -> bool:
    """Whether the group has stages of a bench, rather than levels of a sweep."""
    sql = "SELECT 1 FROM bench_stages JOIN runs USING (run_id) WHERE exp_group_id = ? LIMIT 1"
    return bool(reader.rows(sql, settings.experiment.exp_group_id))


def stage_status(reader: Reader, settings: Settings, generation: int) -> list[Json]:
    """Counts of measured requests by stage; behind them what the config's ladder has still to send, as far as it is
    known: a list to its end, of an automatic ladder or a search the next load."""
    rows = reader.rows(_STAGES, settings.experiment.exp_group_id, generation)
    stages: list[Json] = []
    done: dict[str | None, list[Done]] = {}
    for row in rows:
        planned = max(row["n_measured"] or 0, row["requests"])
        if row["cut"]:  # what bench.max_s left out is not owed
            planned = row["responses"] + row["failures"]
        pending = planned - row["responses"] - row["failures"]
        stages.append(
            {
                "level": _name(row["level"], row["load"], row["repeat_idx"]),
                "run_id": row["run_id"],
                "planned": planned,
                **{key: row[key] for key in ("requests", "responses", "failures")},
                "pending": pending,
            }
        )
        load = stored_load(row)
        figures = stage_figures(reader, row["run_id"], row["rate_per_s"])
        rates = stage_throughput(reader, row["run_id"], load)
        done.setdefault(row["level"], []).append(Done(load, row["repeat_idx"], figures, rates))
    size = orjson.loads(rows[0]["workload_json"]).get("prompts") if rows else None
    return stages + _to_come(settings, done, size)


def _to_come(settings: Settings, done: dict[str | None, list[Done]], size: int | None) -> list[Json]:
    """Empty where the config names no load: it was given on the command line of `kvt bench`."""
    bench = settings.bench
    loads = (bench.rate, bench.concurrency, bench.sweep_rate, bench.sweep_concurrency)
    shaped = bench.shape is not None
    if not bench.search_rate and not bench.replays and not shaped and all(load is None for load in loads):
        return []
    names = {level.label if bench.levels else None: level for level in bench_levels(settings)}
    return [_not_begun(bench, name, step, size) for name in names for step in ahead(bench, done.get(name, ()))]


def _not_begun(bench: Bench, level: str | None, step: Next, size: int | None) -> Json:
    load, n = step.load, wanted(bench, step.load, None, size)
    if load.shape is not None:
        n = round(load.shape.area) if load.is_open else 0
    elif bench.duration_s is not None and not load.unloaded:
        n = round(load.rate_per_s * bench.duration_s) if load.rate_per_s is not None else 0
    counts = dict.fromkeys(("requests", "responses", "failures"), 0)
    name = _name(level, load.label, step.repeat)
    return {"level": name, "run_id": None, "planned": n, **counts, "pending": n, "begun": False}


def _name(level: str | None, load: str, repeat: int) -> str:
    return (f"{level}, {load}" if level else load) + (f" (repeat {repeat})" if repeat else "")
