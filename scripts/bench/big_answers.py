"""Peak memory of `all` and `export` where answers are large: bounded by portions of text, not by numbers of rows.

    python scripts/bench/big_answers.py [--answers 2500] [--mb 1] [--limit-mib 1024] [--without-all]

A database in the real schema, as scale.py makes it, whose every answer has so many MB of words. Exit code 1 where a
command takes more memory than the limit: resident sets of the process and all it started, summed.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from scale import GROUP, Memory, make_database

from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import connect_for_writing, create

COMMANDS = (["export", "answers.parquet"], ["export", "answers.csv"], ["all"])


def enlarge(db: Path, characters: int) -> None:
    """Give every answer that many characters of words."""
    words = "amber basil, cedar dahlia. Ember fern garnet\nhazel iris (juniper) kelp linden "
    filler = (words * (characters // len(words) + 1))[:characters]
    with closing(connect_for_writing(db)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        conn.execute("DROP TRIGGER responses_no_update")
        conn.execute("UPDATE responses SET text = text || ' ' || ?", (filler,))
        create(conn)
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def peak_mib(folder: Path, words: list[str]) -> tuple[float, float]:
    """MiB and seconds of one kvt command upon the database in a folder."""
    command = [sys.executable, "-m", "kvt_async", words[0], *words[1:], "-c", "big.yaml", "--json"]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        memory = Memory(process.pid)
        memory.start()
    if process.returncode:
        raise SystemExit(f"{words[0]} ended with exit code {process.returncode}")
    return memory.take() / 2**20, time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--answers", type=int, default=2500)
    parser.add_argument("--mb", type=float, default=1.0)
    parser.add_argument("--without-all", action="store_true", help="exports alone: scoring a GB of text takes minutes")
    parser.add_argument("--limit-mib", type=float, default=1024)
    asked = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        db = folder / GROUP / DB_NAME
        make_database(db, asked.answers, interleaved=False)
        (folder / "big.yaml").write_text(f"experiment: {{exp_group_id: {GROUP}}}\noutput: {{runs_dir: .}}\n")
        enlarge(db, int(asked.mb * 1e6))
        print(f"{asked.answers:,} answers of {asked.mb:g} MB, {db.stat().st_size / 1e9:.2f} GB")
        for words in COMMANDS[: 2 if asked.without_all else 3]:
            mib, seconds = peak_mib(folder, words)
            worst = max(worst, mib)
            print(f"  {' '.join(words):<24} {seconds:7.1f} s  {mib:6,.0f} MiB", flush=True)
    return int(worst > asked.limit_mib)


if __name__ == "__main__":
    sys.exit(main())
