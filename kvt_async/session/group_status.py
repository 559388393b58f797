"""How far a group is, from any process, also while a runner works: counts, invariants, sessions, who holds the lock."""

from collections.abc import Callable, Sequence

from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.labels import task_level
from kvt_async.contract.live_figures import live_figures
from kvt_async.contract.settings import Settings
from kvt_async.records import Json
from kvt_async.store.lock import holder
from kvt_async.store.reader import Reader

COUNTS = ("planned", "requests", "responses", "failures", "pending")
MOST_LEVELS = 20  # of several tasks, on the screen

Parts = Callable[[Reader, Settings, int], list[Json]]
"""(reader, settings, generation) -> {level, planned, requests, responses, failures, pending} of each level of a sweep
or stage of a bench; `begun` False: the config names it, and nothing of it is stored."""


def lines(now: Json) -> list[str]:
    """The status as sentences and a table, for people."""
    out = [
        f"{now['exp_group_id']}, generation {now['generation']}: {now['responses']} answered, "
        f"{now['failures']} failed, {now['pending']} pending of {now['planned']}"
    ]
    tasks = list(dict.fromkeys(level["task"] for level in now["levels"] if "task" in level))
    if tasks:
        per_task = [[level for level in now["levels"] if level["task"] == task] for task in tasks]
        out += _table("task", [(task, _sum(own)) for task, own in zip(tasks, per_task, strict=True)])
        open_levels = [level for level in now["levels"] if level["pending"] or level["failures"]]
        rows = [(task_level(level["task"], level["level"]), level) for level in open_levels[:MOST_LEVELS]]
        out += _table("level that is not complete", rows) if rows else []
        if (more := len(open_levels) - len(rows)) > 0:
            out.append(f"  and {more} more levels that are not complete (--json has them all)")
    else:
        out += _table("level", [(level["level"], level) for level in now["levels"]])
    for name, n in now["failures_by_type"].items():
        out.append(f"  failed: {n} x {name}")
    if now["running"]:
        out.append(f"running: {now['holder']}")
    if now["live"] is not None:
        out.append(f"at {now['live']['at'][11:19]} UTC: {now['live']['line']}")
    last = now["sessions"][-1] if now["sessions"] else None
    if last is not None and not now["running"]:
        ended = f"{last['reason']} (exit {last['exit_code']})" if last["ended_at"] else "killed"
        n, error = len(now["sessions"]), last["client_error_ms"]
        times = "the client's own error was not measured" if error is None else f"latencies: ±{error:.1f} ms"
        out.append(f"{n} session{'' if n == 1 else 's, the last'} {ended}; {times}")
    out += [f"INVARIANT BROKEN: {text}" for text in now["broken"]]
    return out


def _table(title: str, rows: Sequence[tuple[str, Json]]) -> list[str]:
    width = max([len(title), *(len(name) for name, _ in rows)])
    head = f"  {title:{width}} {'planned':>8} {'queued':>8} {'answered':>8} {'failed':>8} {'pending':>8}"
    lines = [f"  {name:{width}} " + " ".join(f"{counts[key]:>8}" for key in COUNTS) for name, counts in rows]
    return [head, "  " + "-" * (len(head) - 2), *lines]


def _sum(levels: Sequence[Json]) -> Json:
    return {key: sum(level[key] for level in levels) for key in COUNTS}


def group_status(reader: Reader, settings: Settings, parts: Parts) -> Json:
    """What `kvt status` answers. Raises MissingPrerequisiteError where nothing was run yet."""
    group = settings.experiment.exp_group_id
    generation = reader.value("SELECT max(generation) FROM experiments WHERE exp_group_id = ?", group)
    if generation is None:
        raise MissingPrerequisiteError(
            f"nothing of {group} was run yet", where=str(reader.db), do="Run `kvt sweep -c CONFIG` first."
        )
    levels = [{"begun": True, **level} for level in parts(reader, settings, generation)]
    broken = []
    for level in levels:
        settled = level["responses"] + level["failures"]
        if settled > level["requests"] or level["requests"] > level["planned"]:
            counts = f"{settled} settled, {level['requests']} queued, {level['planned']} planned"
            broken.append(f"{task_level(level.get('task', ''), level['level'])}: {counts}")
    broken += _contradictions(reader, group, generation)
    sessions = [dict(row) for row in reader.rows(_SESSIONS, group, generation)]
    at_work = holder(reader.db)
    live = live_figures(reader.rows, group, generation) if at_work is not None else None
    return {
        "exp_group_id": group,
        "generation": generation,
        "db": str(reader.db),
        **_sum(levels),
        "levels": levels,
        "ahead": sum(not level["begun"] for level in levels),
        "failures_by_type": {row[0]: row[1] for row in reader.rows(_FAILURES, group, generation)},
        "sessions": sessions,
        "running": at_work is not None,
        "holder": str(at_work) if at_work else None,
        "live": None if live is None or live.over else live.json,
        "invariants_hold": not broken,
        "broken": broken,
    }


def _contradictions(reader: Reader, group: str, generation: int) -> list[str]:
    """Sentences about what the views rule out, counted without them."""
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
