"""Databases with damage of every kind, and every command that reads one: it is refused and what suffered is named, or
there is a result; never a traceback, and nothing is written to a file that was refused."""

import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from soak_ground import broken, experiment, server

from kvt_async.contract.paths import DB_NAME
from tests.older_db import made_older

PAGE = 4096
_REFUSED = re.compile(r"the database is damaged in [a-z]|file is not a database|another program's database|"
                      r"holds no kvt tables|schema version")  # fmt: skip
_NOT_OURS = re.compile(r"Traceback|This is a bug")
Damage = Callable[[random.Random, bytearray], None]


def damage(folder: Path, n_files: int, n_requests: int, seed: int) -> int:
    """`n_files` copies of a sweep's and a bench's database, each damaged in another way."""
    ends = Counter[str]()
    with server() as url:
        _, config = experiment(
            folder, url, n_requests, "analysis.resamples=500", "analysis.charts=false", "bench.requests=40",
            "bench.workload.input_tokens.value=40", "bench.workload.output_tokens.value=6",
            "bench.warm_up={requests: 4, latencies: 0}",
        )  # fmt: skip
        whole = folder / "whole"
        for verb in ("sweep", "all", "bench"):
            made = _run(whole, config, verb)
            if made.returncode:
                return broken(f"{verb}\n{made.stderr}")
        made_older(whole / "runs" / "g" / DB_NAME, whole / "runs" / "older" / DB_NAME)
        for nth in range(n_files):
            name, spoil = list(KINDS.items())[nth % len(KINDS)]
            for verb in VERBS:
                copy = folder / "copy"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(whole, copy)
                group = next((name for name in ("bench", "older") if verb.startswith(name)), "g")
                db = copy / "runs" / group / DB_NAME
                data = bytearray(db.read_bytes())
                spoil(random.Random(f"{seed} {nth}"), data)
                db.write_bytes(data)
                ended = _run(copy, config, verb)
                case = f"file {nth} ({name}), {verb}: exit {ended.returncode}"
                if ended.returncode not in (0, 1, 3, 4) or _NOT_OURS.search(ended.stderr):
                    return broken(f"{case}\n{ended.stdout}\n{ended.stderr}")
                refused = ended.returncode == 3 and _REFUSED.search(ended.stderr)
                if refused and db.read_bytes() != data:
                    return broken(f"{case}: refused, and yet written to\n{ended.stderr}")
                if ended.returncode == 3 and not refused:
                    print(f"  {case}: {ended.stderr.strip().splitlines()[0]}", flush=True)
                ends["refused" if refused else f"exit {ended.returncode}"] += 1
            if nth % 20 == 19:
                print(f"  {nth + 1} files, {dict(ends)}", flush=True)
    print(f"{n_files} damaged files, {sum(ends.values())} commands: {dict(ends)}; no traceback, and no file that was "
          "refused was written to")  # fmt: skip
    return 0


def _run(folder: Path, config: Path, verb: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "kvt_async", *VERBS.get(verb, (verb,))]
    words = [word.replace("FOLDER", str(folder)) for word in words]
    if verb not in ("compare", "bench compare") and not verb.startswith("older"):
        words += ["-c", str(config), "--override", f"output.runs_dir={folder / 'runs'}",
                  "--override", f"output.data_dir={folder / 'data'}"]  # fmt: skip
    if verb.startswith("bench") and verb != "bench compare":
        words += ["--override", "experiment.exp_group_id=bench"]
    if verb == "bench":
        words += ["--concurrency", "4"]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)


VERBS: dict[str, tuple[str, ...]] = {
    "status": ("status",), "show": ("show", "e1"), "score": ("score",), "analyze": ("analyze",),
    "report": ("report",), "export": ("export", "FOLDER/out.csv"), "verify": ("verify",),
    "compare": ("compare", "FOLDER/runs/g", "FOLDER/../whole/runs/g"), "sweep": ("sweep",),
    "bench report": ("bench", "report"), "bench": ("bench",),
    "older upgrade": ("upgrade", "FOLDER/runs/older"), "older all": ("all", "FOLDER/runs/older"),
    "older verify": ("verify", "FOLDER/runs/older"),
}  # fmt: skip


def _bits(n: int) -> Damage:
    def flip(dice: random.Random, data: bytearray) -> None:
        for _ in range(n):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)

    return flip


def _page(content: Callable[[random.Random, bytearray], bytes]) -> Damage:
    def write(dice: random.Random, data: bytearray) -> None:
        at = dice.randrange(len(data) // PAGE) * PAGE
        data[at : at + PAGE] = content(dice, data)

    return write


def _other(dice: random.Random, data: bytearray) -> bytes:
    at = dice.randrange(len(data) // PAGE) * PAGE
    return bytes(data[at : at + PAGE])


def _cut(dice: random.Random, data: bytearray) -> None:
    del data[dice.randrange(len(data)) :]


def _page_of_names(dice: random.Random, data: bytearray) -> None:
    for _ in range(3):
        data[dice.randrange(100, PAGE)] ^= 1 << dice.randrange(8)


KINDS: dict[str, Damage] = {
    "one bit": _bits(1), "40 bits": _bits(40), "400 bits": _bits(400),
    "a random page": _page(lambda dice, _: dice.randbytes(PAGE)),
    "a page of zeros": _page(lambda _dice, _data: bytes(PAGE)),
    "another page's content": _page(_other), "no tail": _cut, "3 bits of the schema": _page_of_names,
}  # fmt: skip
