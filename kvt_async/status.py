"""`kvt status`: how far a group is, swept or benched, from any process, also while a runner works on it."""

import sqlite3
import sys
import time
from contextlib import closing

import orjson

from kvt_async.bench.bench_status import is_benched, stage_status
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.group_databases import GroupDatabase, group_databases
from kvt_async.contract.visible import visible
from kvt_async.records import Json
from kvt_async.senders.scratch_facts import scratch_dbs
from kvt_async.session.group_status import group_status, lines
from kvt_async.session.shards_status import shard_lines, together, without_others
from kvt_async.store.facts_beside import MOST
from kvt_async.store.reader import Reader
from kvt_async.sweep.level_status import level_status

WATCH_S = 2.0


def status(settings: Settings) -> Json:
    """The group of a config as it is now, with its shards. Raises MissingPrerequisiteError where nothing was run."""
    own = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db
    members = group_databases(own)
    parts = [_of_member(settings, member) for member in members]
    return parts[0] if members == (GroupDatabase(own),) else together(str(own), members, parts)


def _of_member(settings: Settings, member: GroupDatabase) -> Json:
    """One database, with what its sender processes have stored so far: of MOST of them, where there are more."""
    while True:
        senders = scratch_dbs(member.db)[:MOST]
        try:
            with closing(Reader(member.db, beside=senders)) as reader:
                of_parts = stage_status if is_benched(reader, settings) else level_status
                part = group_status(reader, settings, of_parts)
                return without_others(reader, member, part) if member.without else part
        except sqlite3.OperationalError:
            if all(path.is_file() for path in senders):  # else its facts were taken over meanwhile
                raise


def show_status(settings: Settings, *, watch: bool = False, as_json: bool = False) -> int:
    """Print it; with `watch` until nothing is pending or nobody runs. Exit code 1: the counts don't add up."""
    while True:
        now = status(settings)
        if as_json:
            print(orjson.dumps(now, option=orjson.OPT_INDENT_2).decode(), flush=True)
        else:
            print("\n".join(map(visible, [*lines(now), *shard_lines(now)])), flush=True)
        if not watch or not now["running"] or not (now["pending"] or now["ahead"]):
            return 0 if now["invariants_hold"] else 1
        time.sleep(WATCH_S)
        if not as_json and sys.stdout.isatty():
            print()
