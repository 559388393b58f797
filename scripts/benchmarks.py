"""Every benchmark of scripts/bench/, one after the other, small: does it run, and what does it say?

    python scripts/benchmarks.py [--only WORDS...] [--full] [--limit-s 600]

--full leaves each script its own sizes (some take many minutes). A script that fails or takes longer than the limit
ends with its name in the last line, and exit 1; the others still run.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent / "bench"
QUICK = {  # a script that isn't here is small by itself
    "bootstrap": ["--repeats", "1", "--resamples", "2000"],
    "client": ["--runs", "1", "--seconds", "0.2"],
    "long_answers": ["--answers", "40", "--streams", "40", "--tokens", "3000", "--itl-ms", "1"],
    "metrics": ["--scale", "0.02"],
    "pooled_intervals": ["--runs", "20"],
    "scale": ["--rows", "5000", "10000"],
    "scoring": ["--n", "50000"],
    "sweep": ["--runs", "1", "--requests", "300", "--concurrency", "8"],
    "throughput": ["--runs", "40"],
    "truth": ["--streams", "64", "--runs", "1", "--loop", "uvloop"],
}


def run(script: Path, options: list[str], limit_s: float) -> str:
    """'' where the script ended well, else what was wrong."""
    try:
        done = subprocess.run([sys.executable, str(script), *options], timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {limit_s:g} s"
    return f"exit {done.returncode}" if done.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="scripts whose name holds one of these")
    parser.add_argument("--full", action="store_true", help="each at its own size")
    parser.add_argument("--limit-s", type=float, default=600)
    parser.add_argument("--folder", type=Path, default=HERE, help=argparse.SUPPRESS)
    given = parser.parse_args()
    wrong: dict[str, str] = {}
    scripts = [s for s in sorted(given.folder.glob("[a-z]*.py")) if any(word in s.stem for word in given.only)]
    for script in scripts:
        options = [] if given.full else QUICK.get(script.stem, [])
        print(f"== {script.name} {' '.join(options)}", flush=True)
        start = time.monotonic()
        if problem := run(script, options, given.limit_s):
            wrong[script.name] = problem
        print(f"-- {script.name}: {problem or 'done'} in {time.monotonic() - start:.0f} s", flush=True)
    for name, problem in wrong.items():
        print(f"FAILED {name}: {problem}")
    if not wrong:
        print(f"{len(scripts)} benchmarks ran")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
