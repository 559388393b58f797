"""How far a group is, from any process, also while a runner works: counts, invariants, sessions, who holds the lock."""

import sys
import time
from collections.abc import Callable

from kvt_async.contract.errors import KvtError, MissingPrerequisiteError
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings
from kvt_async.contract.visible import visible
from kvt_async.contract.vocabulary import Unit
from kvt_async.records import Json
from kvt_async.store.lock import holder
from kvt_async.store.reader import Reader

WATCH_S = 2.0
Levels = Callable[[Reader, Settings, int], list[Json]]
"""(reader, settings, generation) -> {level, planned, requests, responses, failures, pending, begun} of each."""


def status(settings: Settings, levels: Levels | None = None) -> Json:
    """One look; `levels` counts what a group consists of, a sweep's levels where it is None. Raises
    MissingPrerequisiteError where nothing was run yet."""
    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    reader = Reader(paths.db)
    try:
        return _look(reader, settings, levels or _swept)
    finally:
        reader.close()


def is_complete(settings: Settings) -> bool:
    """Whether a sweep of this config would send nothing: every level settled. False where it would be refused."""
    from kvt_async.sweep.pending import find_group, prepared_head, stored_dataset, unsettled
    from kvt_async.sweep.plan import pending
    from kvt_async.ways.levels import make_levels

    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    try:
        head = prepared_head(settings, prepare_first=False, force=False, say=lambda _: None)
        reader = Reader(paths.db)
        try:
            group = find_group(reader, settings, head, make_levels(settings).levels, force=False)
            done, _ = unsettled(reader, group.runs, stored_dataset(reader, head, group.generation), None)
        finally:
            reader.close()
    except KvtError:
        return False
    return sum(pending(done)) == 0


def show_status(settings: Settings, *, watch: bool = False, as_json: bool = False, levels: Levels | None = None) -> int:
    """Print it; with `watch` until nothing is pending or nobody runs. Exit code 1: the counts don't add up."""
    while True:
        now = status(settings, levels)
        if as_json:
            import orjson

            print(orjson.dumps(now, option=orjson.OPT_INDENT_2).decode(), flush=True)
        else:
            print("\n".join(map(visible, lines(now))), flush=True)
        if not watch or not now["running"] or not (now["pending"] or now["ahead"]):
            return 0 if now["invariants_hold"] else 1
        time.sleep(WATCH_S)
        if not as_json and sys.stdout.isatty():
            print()


def lines(now: Json) -> list[str]:
    """The answer for people."""
    out = [f"{now['exp_group_id']}, generation {now['generation']}: {now['responses']} answered, "
           f"{now['failures']} failed, {now['pending']} pending of {now['planned']}"]  # fmt: skip
    width = max((len(level["level"]) for level in now["levels"]), default=5)
    head = f"  {'level':{width}} {'planned':>8} {'queued':>8} {'answered':>8} {'failed':>7} {'pending':>8}"
    out += [head, "  " + "-" * (len(head) - 2)]
    for level in now["levels"]:
        out.append(
            f"  {level['level']:{width}} {level['planned']:>8} {level['requests']:>8} {level['responses']:>8} "
            f"{level['failures']:>7} {level['pending']:>8}"
        )
    for name, n in now["failures_by_type"].items():
        out.append(f"  failed: {n} x {name}")
    if now["running"]:
        out.append(f"running: {now['holder']}")
    last = now["sessions"][-1] if now["sessions"] else None
    if last is not None and not now["running"]:
        ended = f"{last['reason']} (exit {last['exit_code']})" if last["ended_at"] else "killed"
        n, error = len(now["sessions"]), last["client_error_ms"]
        times = "the client's own error was not measured" if error is None else f"latencies: ±{error:.1f} ms"
        out.append(f"{n} session{'' if n == 1 else 's, the last'} {ended}; {times}")
    out += [f"INVARIANT BROKEN: {text}" for text in now["broken"]]
    return out


def _swept(reader: Reader, settings: Settings, generation: int) -> list[Json]:
    levels = []
    for run in reader.rows(
        """SELECT run_id, series, kv_budget, kv_unit, is_full, repeat_idx, dataset_id FROM runs
           WHERE exp_group_id = ? AND generation = ? ORDER BY repeat_idx, level_idx, created_at""",
        settings.experiment.exp_group_id,
        generation,
    ):
        planned = reader.value("SELECT count(*) FROM manifest_entries WHERE dataset_id = ?", run["dataset_id"])
        counts = reader.counts(run["run_id"])
        name = run["series"] + ("" if run["is_full"] else f" {run['kv_budget']:g}")
        name += " tokens" if run["kv_unit"] == Unit.TOKENS else " bits" if run["kv_unit"] == Unit.BITS else ""
        name += f" (repeat {run['repeat_idx']})" if run["repeat_idx"] else ""
        settled = counts["responses"] + counts["failures"]
        pending = planned - settled
        levels.append({"level": name, "run_id": run["run_id"], "planned": planned, **counts, "pending": pending})
    return levels


def _look(reader: Reader, settings: Settings, levels_of: Levels) -> Json:
    group = settings.experiment.exp_group_id
    generation = reader.value("SELECT max(generation) FROM experiments WHERE exp_group_id = ?", group)
    if generation is None:
        raise MissingPrerequisiteError(
            f"nothing of {group} was run yet", where=str(reader.db), do="Run `kvt sweep -c CONFIG` first."
        )
    levels = [{"begun": True, **level} for level in levels_of(reader, settings, generation)]
    broken = []
    for level in levels:
        settled = level["responses"] + level["failures"]
        if settled > level["requests"] or level["requests"] > level["planned"]:
            counts = f"{settled} settled, {level['requests']} queued, {level['planned']} planned"
            broken.append(f"{level['level']}: {counts}")
    broken += _contradictions(reader, group, generation)
    sessions = [dict(row) for row in reader.rows(_SESSIONS, group, generation)]
    at_work = holder(reader.db)
    return {
        "exp_group_id": group,
        "generation": generation,
        "db": str(reader.db),
        **{key: sum(level[key] for level in levels) for key in ("planned", "requests", "responses", "failures")},
        "pending": sum(level["pending"] for level in levels),
        "levels": levels,
        "ahead": sum(not level["begun"] for level in levels),
        "failures_by_type": {row[0]: row[1] for row in reader.rows(_FAILURES, group, generation)},
        "sessions": sessions,
        "running": at_work is not None,
        "holder": str(at_work) if at_work else None,
        "invariants_hold": not broken,
        "broken": broken,
    }


def _contradictions(reader: Reader, group: str, generation: int) -> list[str]:
    """What the views promise, counted without them."""
    n = reader.value(
        """SELECT count(*) FROM failures f JOIN responses p USING (request_id) JOIN runs u ON u.run_id = f.run_id
           WHERE u.exp_group_id = ? AND u.generation = ?""",
        group,
        generation,
    )
    return [f"{n} requests have both a response and a failure"] if n else []


_FAILURES = """SELECT ifnull(f.error_type, f.reason), count(*) FROM failures f JOIN runs u USING (run_id)
    WHERE u.exp_group_id = ? AND u.generation = ? GROUP BY 1 ORDER BY 2 DESC"""
_SESSIONS = """SELECT s.session_id, s.started_at, s.command, s.concurrency, e.ended_at, e.exit_code, e.reason,
    (SELECT h.verdict FROM client_health h WHERE h.session_id = s.session_id ORDER BY h.created_at DESC LIMIT 1)
    AS client,
    (SELECT h.error_bound_ms FROM client_health h WHERE h.session_id = s.session_id ORDER BY h.created_at DESC LIMIT 1)
    AS client_error_ms FROM sessions s LEFT JOIN session_ends e USING (session_id)
    WHERE s.exp_group_id = ? AND s.generation = ? ORDER BY s.started_at"""
