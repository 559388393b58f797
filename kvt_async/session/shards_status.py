"""The status of a group that lies in several databases, from the status of each."""

from collections import Counter
from collections.abc import Sequence

from kvt_async.contract.shards.group_databases import GroupDatabase
from kvt_async.contract.shards.shard import Shard
from kvt_async.records import Json
from kvt_async.session.group_status import COUNTS
from kvt_async.store.reader import Reader

AT_ONCE = 500  # request_ids of one query
_DONE = ("requests", "responses", "failures")


def without_others(reader: Reader, member: GroupDatabase, status: Json) -> Json:
    """The status of one database, without the requests that are read from another one."""
    gone, by_type = Counter[tuple[str, str]](), Counter[str]()
    ids = sorted(member.without)
    for at in range(0, len(ids), AT_ONCE):
        some = ids[at : at + AT_ONCE]
        marks = ",".join("?" * len(some))
        sql = f"SELECT run_id, state, count(*) FROM outcomes WHERE request_id IN ({marks}) GROUP BY 1, 2"
        for run_id, state, n in reader.rows(sql, *some):
            gone[run_id, "requests"] += n
            gone[run_id, {"response": "responses", "failure": "failures"}.get(state, "")] += n
        sql = f"SELECT ifnull(error_type, reason), count(*) FROM failures WHERE request_id IN ({marks}) GROUP BY 1"
        by_type.update(dict(tuple(row) for row in reader.rows(sql, *some)))
    levels = [
        {**level, **{key: level[key] - gone[level.get("run_id", ""), key] for key in _DONE}}
        for level in status["levels"]
    ]
    types = {name: n - by_type[name] for name, n in status["failures_by_type"].items() if n > by_type[name]}
    return {**status, "levels": levels, "failures_by_type": types}


def together(db: str, members: Sequence[GroupDatabase], parts: Sequence[Json]) -> Json:
    """One status of a group from those of its databases, in their order; `shards` says how each of them is.

    Of the generations the newest counts. A level that only some have begun is planned as a whole.
    """
    generation = max(part["generation"] for part in parts)
    newest = [(member, part) for member, part in zip(members, parts, strict=True) if part["generation"] == generation]
    levels: dict[tuple[str, str], Json] = {}
    for _, part in newest:
        for level in part["levels"]:
            planned = level.pop("of", level["planned"])
            seen = levels.setdefault((level.get("task", ""), level["level"]), {**level, **dict.fromkeys(_DONE, 0)})
            seen["planned"] = max(planned, seen["planned"])
            for key in _DONE:
                seen[key] += level[key]
    for level in levels.values():
        level["pending"] = level["planned"] - level["responses"] - level["failures"]
    failures = Counter[str]()
    for _, part in newest:
        failures.update(part["failures_by_type"])
    sessions = [{**each, "db": part["db"]} for _, part in newest for each in part["sessions"]]
    is_apart = len({member.part and member.part[1] for member, _ in newest}) == 1  # each part is one database's alone
    holders = [f"{_name(member)}: {part['holder']}" for member, part in newest if part["holder"]]
    lives = [part["live"] for _, part in newest if part["live"] is not None]
    return {
        **newest[0][1],
        "db": db,
        **{key: sum(level[key] for level in levels.values()) for key in COUNTS},
        "levels": list(levels.values()),
        "failures_by_type": dict(failures.most_common()),
        "sessions": sorted(sessions, key=lambda each: str(each["started_at"])),
        "running": bool(holders),
        "holder": "; ".join(holders) or None,
        "live": lives[0] if len(lives) == 1 else None,
        "invariants_hold": all(part["invariants_hold"] for _, part in newest),
        "broken": [f"{_name(member)}: {text}" for member, part in newest for text in part["broken"]],
        "shards": [_of_one(member, part, is_apart=is_apart) for member, part in newest],
    }


def shard_lines(now: Json) -> list[str]:
    """A table of the group's databases, for people; empty where it has one."""
    shards = now.get("shards", [])
    if not shards:
        return []
    width = max(len(shard["name"]) for shard in shards)
    head = f"  {'part':{width}} {'planned':>8} {'answered':>8} {'failed':>8} {'pending':>8}"
    rows = [
        f"  {shard['name']:{width}} {_or_dash(shard['planned'])} {shard['responses']:>8} {shard['failures']:>8} "
        f"{_or_dash(shard['pending'])}  {shard['state']}"
        for shard in shards
    ]
    return [head, "  " + "-" * (len(head) - 2), *rows]


def _of_one(member: GroupDatabase, part: Json, *, is_apart: bool) -> Json:
    """Counts of one database, how its last session ended, and what one at work has told; planned and pending None:
    others settle some of it."""
    last = part["sessions"][-1] if part["sessions"] else None
    state = "running" if part["running"] else "not begun"
    if last is not None and not part["running"]:
        state = f"{last['reason']} (exit {last['exit_code']})" if last["ended_at"] else "killed"
    counts = {key: sum(level[key] for level in part["levels"]) for key in _DONE}
    planned = sum(level["planned"] for level in part["levels"]) if is_apart else None
    pending = None if planned is None else planned - counts["responses"] - counts["failures"]
    counts |= {"planned": planned, "pending": pending}
    return {"name": _name(member), "db": part["db"], **counts, "state": state, "live": part["live"]}


def _or_dash(n: int | None) -> str:
    return f"{'-' if n is None else n:>8}"


def _name(member: GroupDatabase) -> str:
    return "the group's own" if member.part is None else str(Shard(*member.part))
