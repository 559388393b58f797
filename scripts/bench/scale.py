"""score, analyze and report of large experiments: seconds, rows/s and peak memory, each size against the smallest.

    python scripts/bench/scale.py [--rows 100000 1000000] [--tasks 20] [--shards 16] [--interleaved] [--lean]
        [--keep DIR]

A row is one request with its outcome. Each size is a database in the real schema: two series, ten budgets (full cache
among them) and a repeat of full cache, five bins, 1% of the requests failed, short answers; written level by level, or
--interleaved: examples in blocks of 50, each at every level. With --tasks they are dealt to so many tasks of one group,
task by task; with --shards the group lies in so many databases, each with the whole manifest and its share of the
examples at every level. --lean: shorter names and less in each reply, two thirds of the disk. Its stages are timed one
by one in a process of their own (starting it belongs to `score`), then a `kvt all` that finds nothing to do, the
second one: the first counts what only `all` keeps. Memory is the peak of that process and all it started together, as
resident sets, so what they share counts several times. `ratio` is the time per row against the smallest size: 1 =
linear. With --keep the databases stay in DIR for the next time, which then makes their scores and results anew.
"""

import argparse
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import connect_for_writing, create
from kvt_async.contract.schema_tables import DERIVED_TABLES

GROUP = "scale"
NOW = "2026-01-02T03:04:05Z"
SERIES = ("snapkv/question_aware", "random/question_aware")
BUDGETS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
LEVELS = [("full", 1.0, 0), *((s, b, 0) for s in SERIES for b in BUDGETS), ("full", 1.0, 1)]
BINS = 5
BLOCK = 50

# Numbers in [0, 1) that look random and are the same everywhere: of an example, and of an example in a run.
_OF_SEQ = "((seq * 48271 + 11) % 2147483647 * 16807 % 2147483647 % 1000 / 1000.0)"
_OF_BOTH = "((seq * 69621 + :level * 40503 + {}) % 2147483647 * 48271 % 2147483647 % 1000 / 1000.0)"
_WORDS = "amber basil cedar dahlia ember fern garnet hazel iris juniper kelp linden"

EXAMPLES = f"""
INSERT INTO examples SELECT :task, 'ex-' || seq, 'Which box is it?', 'Box ' || seq || ' is the one.',
    json_array(w1.word || ' ' || w2.word || ' ' || seq), '{{}}', :task || printf('%064x', seq)
    FROM numbers JOIN words w1 ON w1.i = seq % 12 JOIN words w2 ON w2.i = (seq * 7 + seq / 12) % 12;
INSERT INTO manifest_entries SELECT :task, 'ex-' || seq, seq, 1, seq % {BINS}, tokens, tokens - 12, tokens, 0, 'p'
    FROM (SELECT seq, 400 * (1 + seq % {BINS}) + seq * 31 % 100 AS tokens FROM numbers);
"""
# What comes of each example in one run: `right` as its budget allows, 5% drawn anew; `near` shares a word.
OUTCOMES = f"""
CREATE TEMP TABLE done AS SELECT :run || ':' || seq AS request_id, seq, example_id, token_len, gold, failed,
    CASE WHEN draw < :chance THEN upper(substr(gold, 1, 1)) || substr(gold, 2) || '.'
         WHEN draw < 0.7 THEN substr(gold, 1, instr(gold, ' ')) || 'nothing'
         ELSE 'something else ' || cast(noise * 10 AS INTEGER) END AS text,
    max(1, cast(token_len * :budget AS INTEGER)) AS kept,
    20000000 + token_len * 40000 + cast(noise * 4000000 AS INTEGER) AS ttft
    FROM (SELECT e.seq, e.example_id, e.token_len, json_extract(answers_json, '$[0]') AS gold,
              {_OF_BOTH.format(3)} < 0.01 AS failed, {_OF_BOTH.format(5)} AS noise,
              CASE WHEN {_OF_BOTH.format(1)} < 0.05 THEN {_OF_BOTH.format(2)} ELSE {_OF_SEQ} END AS draw
          FROM manifest_entries e JOIN examples USING (dataset_id, example_id)
          WHERE dataset_id = :task AND seq >= :start AND seq < :start + :block AND seq % :n = :i ORDER BY seq)
"""
FACTS = (
    "INSERT INTO requests SELECT request_id, :run, example_id, 0, 0, 'p', :now FROM done",
    "INSERT INTO attempts SELECT request_id, 0, 0, :session, :now, 'http://127.0.0.1/v1', iif(failed, NULL, 200),"
    " iif(failed, 'timeout', 'done'), iif(failed, 'TtfbTimeout', NULL), iif(failed, 'no reply', NULL), NULL, NULL,"
    " ttft / 1e9 + 0.01 FROM done",
    "INSERT INTO telemetry SELECT request_id, 0, NULL, 997, 998, 999, 1000, 1, 1000, 1010, 1020, ttft, ttft, ttft,"
    " NULL, ttft + 1000, NULL, ttft + 9000000, ttft + 9000000, ttft + 9000000, ttft + 9000000, ttft + 9100000,"
    " 'transport', NULL, NULL, 0, 7, 4, 900, x'0a050b050c050d05', token_len, 4, 0 FROM done WHERE NOT failed",
    "INSERT INTO responses SELECT request_id, 0, text, NULL, NULL, 'stop', json_object('prompt_tokens', token_len,"
    " 'completion_tokens', 4, 'total_tokens', token_len + 4, 'kv', json_object('policy', :policy, 'kept_tokens', kept,"
    " 'prompt_tokens', token_len, 'kept_fraction', kept * 1.0 / token_len, 'bytes', kept * 1024)),"
    " json_object('requested', :budget, 'effective', kept * 1.0 / token_len, 'unit', 'fraction', 'source', 'echoed'),"
    " kept * 1.0 / token_len, NULL, :now FROM done WHERE NOT failed",
    "INSERT INTO give_ups SELECT request_id, 0, 'attempts_exhausted', :now FROM done WHERE failed",
)


@dataclass(frozen=True)
class Part:
    """Shard i of n of the examples, from 0; one of one is all."""

    i: int = 0
    n: int = 1

    @property
    def session(self) -> str:
        return f"session-{self.i}"

    @property
    def columns(self) -> str:
        """shard_i and shard_n of its session."""
        return f"{self.i + 1}, {self.n}" if self.n > 1 else "NULL, NULL"

    def path(self, own: Path) -> Path:
        return own.parent / "shards" / f"{self.i + 1}-of-{self.n}.sqlite" if self.n > 1 else own


LEAN = (
    *FACTS[:3],
    "INSERT INTO responses SELECT request_id, 0, text, NULL, NULL, 'stop', json_object('kv', json_object('kept_tokens',"
    " kept, 'bytes', kept * 1024)), json_object('source', 'echoed'), kept * 1.0 / token_len, NULL, '' FROM done"
    " WHERE NOT failed",
    FACTS[4],
)
"""The same with less of what a reply says of itself, for sizes that a disk would not hold else."""


def make_database(
    path: Path, rows: int, *, tasks: int = 1, interleaved: bool, lean: bool = False, part: Part = Part()
) -> None:
    """Write about `rows` requests with their outcomes, or a part of them, in the order in which a sweep writes them."""
    per_run = max(BINS, rows // len(LEVELS) // tasks)
    conn = connect_for_writing(path)
    for name, value in (("synchronous", "OFF"), ("foreign_keys", "OFF"), ("cache_size", -262_144)):
        conn.execute(f"PRAGMA {name}={value}")
    for (trigger,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        conn.execute(f"DROP TRIGGER {trigger}")  # they look every row up; back at the end
    conn.executescript(
        f"""INSERT INTO experiments VALUES ('{GROUP}', 1, '{NOW}', '{{}}', 'c');
        INSERT INTO sessions (session_id, exp_group_id, generation, started_at, command, config_yaml, config_sha256,
            kvt_version, python, platform, shard_i, shard_n) VALUES ('{part.session}', '{GROUP}', 1, '{NOW}',
            'kvt sweep', '', 'c', '0', '3', 'Linux', {part.columns});
        INSERT INTO session_ends VALUES ('{part.session}', '{NOW}', 0, 'finished');
        CREATE TEMP TABLE numbers AS WITH n(seq) AS (SELECT 0 UNION ALL SELECT seq + 1 FROM n WHERE seq < {per_run - 1})
            SELECT seq FROM n;
        CREATE TEMP TABLE words (i INTEGER PRIMARY KEY, word TEXT);"""
    )
    conn.executemany("INSERT INTO words VALUES (?, ?)", enumerate(_WORDS.split()))
    conn.execute("BEGIN")
    for task in range(tasks):
        add_task(conn, f"d{task}", per_run, interleaved=interleaved, lean=lean, part=part)
    conn.execute("COMMIT")
    create(conn)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()


def add_task(conn: sqlite3.Connection, task: str, per_run: int, *, interleaved: bool, lean: bool, part: Part) -> None:
    """A task of `per_run` examples with every level, or a part of its outcomes."""
    conn.execute(
        "INSERT INTO datasets VALUES (?, 'jsonl', ?, 'reference', 't', NULL, 'qa_f1', '{}', json_object('strategy', "
        "'uniform'))",
        (task, task),
    )
    conn.execute("INSERT INTO task_contracts VALUES (?, 1, ?, ?, '{}', 'c', 1, ?)", (GROUP, task, task, NOW))
    conn.execute("INSERT INTO manifests VALUES (?, 1, 'm', ?, ?)", (task, NOW, per_run))
    limits = [(task, b, 400 * (b + 1), 400 * (b + 1) + 99) for b in range(BINS)]
    conn.executemany("INSERT INTO bins VALUES (?, ?, ?, ?)", limits)
    for statement in EXAMPLES.split(";\n"):
        conn.execute(statement, {"task": task})
    levels = []
    for idx, (series, budget, repeat) in enumerate(LEVELS):
        policy, _, mode = series.partition("/")
        run = f"{task}-{idx}" if lean else f"{task}-{policy}-{budget}-r{repeat}"
        conn.execute(
            "INSERT INTO runs VALUES (?,?,1,?,'reference','http://127.0.0.1/v1','kvt-reference',?,?,?,'fraction',?,'prefill',?,"
            "'body','{}','{}',?,'t','{}',?,?)",
            (
                run,
                GROUP,
                task,
                series,
                policy,
                budget,
                mode or "question_aware",
                int(series == "full"),
                repeat,
                idx,
                NOW,
            ),
        )
        chance = 0.6 * min(1.0, budget / 0.5) if policy == "snapkv" else 0.6 * budget
        level = {"run": run, "task": task, "level": idx, "budget": budget} | {"i": part.i, "n": part.n}
        levels.append(level | {"chance": chance, "policy": policy, "now": NOW, "session": part.session})
    block = BLOCK if interleaved else per_run
    for start in range(0, per_run, block):
        for level in levels:
            for statement in (OUTCOMES, *(LEAN if lean else FACTS), "DROP TABLE done"):
                conn.execute(statement, level | {"start": start, "block": block})


def stages(folder: Path, names: Sequence[str]) -> None:
    """The measured process: stages of analyzer/stages.py, each with a line of JSON when it is done."""
    from analyzer import stages as pipeline

    # Nothing but names is set: the experiment's defaults, 10,000 resamples among them.
    given = [f"experiment.exp_group_id={GROUP}", f"output.runs_dir={folder}"]
    settings = load_settings(None, given, environ={})
    for name in names:
        getattr(pipeline, f"{name}_stage")(settings)
        print(json.dumps([name, cpu_s()]), flush=True)


def cpu_s() -> float:
    """CPU seconds of this process and of those that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Memory(threading.Thread):
    """Watches the resident memory of a process and all below it; `peak` in bytes since it was last taken."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0

    def run(self) -> None:
        while now := sum(resident(pid) for pid in family(self.pid)):
            self.peak = max(self.peak, now)
            time.sleep(0.05)

    def take(self) -> int:
        peak, self.peak = self.peak, 0
        return peak


def family(pid: int) -> list[int]:
    """A process and all below it, from /proc; nothing once it has ended."""
    try:
        tasks = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return [pid]
    return [pid, *(one for text in tasks for child in text.split() for one in family(int(child)))]


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


@dataclass(frozen=True)
class Taken:
    wall_s: float
    cpu_s: float
    peak: int  # bytes

    def line(self, name: str, rows: int) -> str:
        speed = f"{rows / self.wall_s:9,.0f} rows/s"
        return f"  {name:<22} {self.wall_s:7.2f} s  CPU {self.cpu_s:7.2f} s  {speed}  {self.peak / 2**20:6,.0f} MiB"


def measure(folder: Path, *names: str) -> dict[str, Taken]:
    """What each stage took, one after the other in one new process."""
    command = [sys.executable, __file__, "--folder", str(folder), "--stages", *names]
    wall, cpu, found = time.perf_counter(), 0.0, {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        memory = Memory(process.pid)
        memory.start()
        for line in process.stdout or ():
            name, cpu_now = json.loads(line)
            now = time.perf_counter()
            found[name] = Taken(now - wall, cpu_now - cpu, memory.take())
            wall, cpu = now, cpu_now
    if process.returncode:
        raise SystemExit(process.returncode)
    return found


def forget_results(db: Path) -> None:
    """As if nothing had been scored yet."""
    conn = sqlite3.connect(db)
    conn.execute("DROP TRIGGER IF EXISTS scores_removed")  # it looks every row up; the next `score` makes it again
    for table in DERIVED_TABLES:
        conn.execute(f"DELETE FROM {table}")
    conn.commit()
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    shutil.rmtree(db.parent / "plots", ignore_errors=True)
    for made in (*db.parent.glob("report.*"), *db.parent.glob(".made.json")):
        made.unlink()


def database(folder: Path, rows: int, *, tasks: int, shards: int, interleaved: bool, lean: bool) -> Path:
    """A folder that holds the database of one size, or its shards, ready to be analysed for the first time."""
    kinds = {f"{tasks}-tasks": tasks > 1, f"{shards}-shards": shards > 1, "interleaved": interleaved, "lean": lean}
    place = folder / "-".join([str(rows), *(kind for kind, given in kinds.items() if given)])
    own = place / GROUP / DB_NAME
    parts = [Part(i, shards) for i in range(shards)]
    for db in dict.fromkeys([own, *(part.path(own) for part in parts)]):
        if db.exists():
            forget_results(db)
    for part in parts:
        if not part.path(own).exists():
            make_database(part.path(own), rows, tasks=tasks, interleaved=interleaved, lean=lean, part=part)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--interleaved", action="store_true")
    parser.add_argument("--lean", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stages", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stages:
        stages(asked.folder, asked.stages)
        return
    base = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for rows in sorted(asked.rows):
            folder = database(
                asked.keep or Path(scratch),
                rows,
                tasks=asked.tasks,
                shards=asked.shards,
                interleaved=asked.interleaved,
                lean=asked.lean,
            )
            size = sum(db.stat().st_size for db in folder.rglob("*.sqlite")) / 1e9
            cores = len(os.sched_getaffinity(0))
            shards = f"{asked.shards} shards, " if asked.shards > 1 else ""
            print(f"{rows:,} rows, {asked.tasks} tasks, {shards}{len(LEVELS)} levels, {size:.2f} GB, {cores} cores")
            found = measure(folder, "score", "analyze", "report")
            for name, taken in found.items():
                print(taken.line(name, rows))
            once = found.values()
            whole = Taken(sum(t.wall_s for t in once), sum(t.cpu_s for t in once), max(t.peak for t in once))
            base = base or whole.wall_s / rows
            print(f"{whole.line('together', rows)}  ratio {whole.wall_s / rows / base:.2f}")
            measure(folder, "every")  # counts what the stages by themselves had no place to keep
            print(measure(folder, "every")["every"].line("all, once more", rows), flush=True)


if __name__ == "__main__":
    main()
