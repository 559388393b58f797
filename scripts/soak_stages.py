"""Stages of an experiment that are killed, or find their disk full: after a rerun all is as if nothing had happened."""

import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from soak_ground import broken, experiment, server

from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema_tables import DERIVED_TABLES

BEFORE_SWEEP, AFTER_SWEEP = ("prepare", "sweep"), ("score", "analyze", "report")
STAGES = (*BEFORE_SWEEP, *AFTER_SWEEP)
OUT, PAGE, AMPLE = "out.csv", 4096, "512m"
_MADE_AT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? UTC")
_PLACES = re.compile(r"/[^\s\"'`]*/(whole|killed|spare|disk/x)(?=/)")
_SCORED = """SELECT u.series, u.kv_budget, u.repeat_idx, r.example_id, p.text, s.em, s.f1, s.score, s.metric,
s.pred_norm, s.gold_norm, s.failure_label, s.flags FROM scores s JOIN requests r USING (request_id)
JOIN runs u USING (run_id) LEFT JOIN responses p USING (request_id)"""
_VERDICTS = ("verdict", "verdict_text", "safe_budget", "collapse_budget", "half_loss_ci_low", "half_loss_ci_high", "n")
_DROPS = ("kv_budget", "repeat_idx", "bin_idx", "n", "drop_mean", "drop_ci_low", "drop_ci_high", "p_safe", "drop_json")
Made = dict[str, object]


def kills(folder: Path, n_kills: int, n_requests: int, seed: int) -> int:
    """kill -9 at a random instant of each stage in turn, then all of them again."""
    dice, began, hits = random.Random(seed), time.monotonic(), dict.fromkeys((*STAGES, "verify"), 0)
    whole, killed = folder / "whole", folder / "killed"
    with server() as url:
        config = _config(folder, url, n_requests)
        taken = {}
        for stage in (*STAGES, "verify"):
            start = time.monotonic()
            _finish(whole, config, stage)
            taken[stage] = time.monotonic() - start
        expected = _made(whole)
        for nth in range(n_kills):
            stage = list(hits)[nth % len(hits)]
            _before(stage, whole, killed, config)
            process = _start(killed, config, stage)
            time.sleep(dice.uniform(0.2, 1.0) * taken[stage])
            hits[stage] += process.poll() is None
            process.kill()
            process.communicate()
            for again in (*STAGES, "verify"):
                _finish(killed, config, again)
            if wrong := _differs(_made(killed), expected, sent_again=stage in BEFORE_SWEEP):
                return broken(f"kill {nth} in {stage}: {wrong}")
            if left := [str(path) for path in killed.rglob(".*") if path.name != ".made.json"]:
                return broken(f"kill {nth} in {stage} left {left}")
            if nth % 20 == 19:
                print(f"  {nth + 1} kills, {sum(hits.values())} while a stage ran, {time.monotonic() - began:.0f} s",
                      flush=True)  # fmt: skip
    print(f"{n_kills} kills, {sum(hits.values())} while a stage ran ({_listed(hits)}): manifest, derived rows and "
          "report as if nothing had happened; nothing left behind")  # fmt: skip
    return 0


def disks(folder: Path, n_disks: int, n_requests: int, seed: int) -> int:
    """A disk with less room than each stage needs, then more room and the same command again."""
    dice, mount = random.Random(seed), folder / "disk"
    whole, spare = folder / "whole", folder / "spare"
    stages = (*STAGES, "export", "bench")
    full = dict.fromkeys(stages, 0)
    with server() as url:
        config = _config(folder, url, n_requests)
        needs = {}
        for stage in stages:
            used = _size(whole)
            _finish(whole, config, stage)
            needs[stage] = max(_size(whole) - used, 0)
        expected = _made(whole)
        for stage in stages:
            for _ in range(n_disks):
                _before(stage, whole, spare, config)
                used = _size(spare)
                room = int(dice.uniform(0.02, 1.1) * max(needs[stage], 40_000))
                with _disk(mount, used + room):
                    disk = shutil.copytree(spare, mount / "x")
                    process = _start(disk, config, stage)
                    out, err = process.communicate()
                    case = f"{stage} with {room} free bytes"
                    if process.returncode not in (0, 3) or "Traceback" in err:
                        return broken(f"{case}: exit {process.returncode}\n{out}\n{err}")
                    full[stage] += process.returncode == 3
                    if process.returncode == 3 and not (str(mount) in err and re.search("space|full", err)):
                        return broken(f"{case} does not say what is full\n{err}")
                    subprocess.run(["mount", "-o", f"remount,size={AMPLE}", mount], check=True)
                    answered = _answers(disk)
                    for again in (*STAGES, "export", "verify", *(["bench"] if stage == "bench" else [])):
                        _finish(disk, config, again)
                    if not answered <= _answers(disk):
                        return broken(f"{case}: answers that were stored are gone")
                    if wrong := _differs(_made(disk), expected, sent_again=stage in BEFORE_SWEEP):
                        return broken(f"{case}: {wrong}")
            print(f"  {stage}: {full[stage]} of {n_disks} disks were full, exit 3", flush=True)
    print(f"{len(stages) * n_disks} disks, {sum(full.values())} of them full ({_listed(full)}): exit 3 and the disk "
          "named, nothing lost, and with room the same bytes")  # fmt: skip
    return 0


def _config(folder: Path, url: str, n_requests: int) -> Path:
    return experiment(
        folder, url, n_requests, "analysis.resamples=2000", "analysis.charts=false", "bench.requests=60",
        "bench.workload.input_tokens.value=40", "bench.workload.output_tokens.value=6",
        "bench.warm_up={requests: 4, latencies: 0}",
    )[1]  # fmt: skip


def _start(folder: Path, config: Path, stage: str) -> subprocess.Popen[str]:
    places = ["--override", f"output.runs_dir={folder / 'runs'}", "--override", f"output.data_dir={folder / 'data'}"]
    words = [sys.executable, "-m", "kvt_async", stage, *([str(folder / OUT)] if stage == "export" else [])]
    if stage == "bench":
        places += ["--override", "experiment.exp_group_id=bench", "--concurrency", "4", "--force"]
    return subprocess.Popen(
        [*words, "-c", str(config), *places], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _finish(folder: Path, config: Path, stage: str) -> None:
    process = _start(folder, config, stage)
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"BROKEN: {stage} ended with exit code {process.returncode}\n{out}\n{err}")


def _before(stage: str, whole: Path, copy: Path, config: Path) -> None:
    """`copy` becomes what `whole` was before `stage`."""
    shutil.rmtree(copy, ignore_errors=True)
    if stage == "prepare":
        copy.mkdir()
        return
    shutil.copytree(whole, copy)
    (copy / OUT).unlink(missing_ok=True)
    shutil.rmtree(copy / "runs/bench", ignore_errors=True)
    if stage == "sweep":
        shutil.rmtree(copy / "runs")
        _finish(copy, config, "prepare")
    elif stage in AFTER_SWEEP:
        db = _database(copy)
        with closing(sqlite3.connect(db)) as conn:
            for table in DERIVED_TABLES:
                conn.execute(f"DELETE FROM {table}")
            conn.commit()
        for path in (*db.parent.glob("report.*"), db.parent / ".made.json"):
            path.unlink(missing_ok=True)
        for earlier in AFTER_SWEEP[: AFTER_SWEEP.index(stage)]:
            _finish(copy, config, earlier)


def _database(folder: Path) -> Path:
    return folder / "runs/g" / DB_NAME


def _made(folder: Path) -> Made:
    """Everything that stages make, but for the minute at which a report was made."""
    db = _database(folder)
    with closing(sqlite3.connect(db)) as conn:
        rows: Made = {table: sorted(map(repr, conn.execute(f"SELECT * FROM {table}"))) for table in DERIVED_TABLES}
        rows["answers and scores"] = sorted(map(repr, conn.execute(_SCORED)))
        for table, columns in (("transition_summary", _VERDICTS), ("budget_stats", _DROPS)):
            names = ", ".join(("series", *columns))
            rows[f"{table}, without clocks"] = sorted(map(repr, conn.execute(f"SELECT {names} FROM {table}")))
    rows["manifest"] = next((folder / "data").rglob("manifest.json")).read_bytes()
    for path in (*db.parent.glob("report.*"), *folder.glob(OUT)):
        rows[path.name] = _PLACES.sub("", _MADE_AT.sub("", path.read_text()))
    return rows


def _differs(made: Made, expected: Made, *, sent_again: bool) -> list[str]:
    """What isn't the same; where requests were sent again, only what no clock and no identifier has a part in."""
    clocked = {*DERIVED_TABLES, "report.md", "report.html", OUT} if sent_again else set()
    return [
        name for name in made.keys() | expected.keys() if name not in clocked and made.get(name) != expected.get(name)
    ]


def _size(folder: Path) -> int:
    """Bytes on a disk that is made of pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def _answers(folder: Path) -> set[str]:
    """Whole rows of the answers that are stored, a bench's too."""
    rows: set[str] = set()
    for db in folder.rglob(DB_NAME):
        with closing(sqlite3.connect(db)) as conn, suppress(sqlite3.OperationalError):  # no tables yet
            rows.update(map(repr, conn.execute("SELECT * FROM responses")))
    return rows


@contextmanager
def _disk(mount: Path, n_bytes: int) -> Iterator[None]:
    """A disk of that size while the block runs (Linux; needs the right to mount, which `unshare -rm` gives)."""
    mount.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", mount], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())
