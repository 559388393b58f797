"""What no test has the time for: hundreds of kills, tens of thousands of requests against a server that fails.

    python scripts/soak.py kills [--kills 200] [--requests 2000]
    python scripts/soak.py kills --suite [--kills 60] [--requests 672]
    python scripts/soak.py faults [--requests 24000] [--share 0.3]
    (either with --transport lean)
    python scripts/soak.py stages [--kills 200] [--requests 400]
    python scripts/soak.py disks [--disks 10] [--requests 400]
    python scripts/soak.py damage [--files 200] [--requests 400]

`kills --suite` has four tasks, three series at five budgets and three answers to each example. `stages` kills prepare,
sweep, score, analyze, report and verify; after a rerun manifest, derived rows and report are those of an experiment
that nobody killed, and nothing is left behind. `disks` gives each stage, export and bench too, a disk with too little
room, then room: the same (Linux). `damage` spoils databases in eight ways, and gives them to every command that reads
one.

All run `kvt` as a user does, against the scripted server of the tests in a process of its own, and end with exit code 1
when an invariant broke. `make test-slow` runs them.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import soak_damage
import soak_stages
from soak_ground import CONCURRENCY, broken, experiment, server, suite

from kvt_async.contract.errors import KvtError
from kvt_async.contract.settings import Settings
from tests.worlds import check_invariants, query, states

Ground = Callable[..., tuple[Settings, Path]]
FAULTS = ("http_429", "http_500", "cut", "stall", "garbage")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "faults", "stages", "disks", "damage"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--disks", type=int, default=10, help="of each stage")
    parser.add_argument("--files", type=int, default=200, help="databases with damage")
    parser.add_argument("--requests", type=int, help="default: 2,000 for kills, 24,000 for faults, else 400")
    parser.add_argument("--share", type=float, help="of the tries that fail; default: 0.1 for kills, 0.3 for faults")
    parser.add_argument("--transport", choices=["aiohttp", "lean"], default="aiohttp")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--suite", action="store_true", help="kills: several tasks, several answers to an example")
    args = parser.parse_args()
    if args.what == "disks" and os.geteuid() != 0:
        os.execvp("unshare", ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory() as name:
        if args.what == "kills":
            ground = suite if args.suite else experiment
            n_requests = args.requests or (672 if args.suite else 2000)
            return kills(Path(name), ground, args.kills, n_requests, args.share or 0.1, args.seed, args.transport)
        if args.what == "stages":
            return soak_stages.kills(Path(name), args.kills, args.requests or 400, args.seed)
        if args.what == "disks":
            return soak_stages.disks(Path(name), args.disks, args.requests or 400, args.seed)
        if args.what == "damage":
            return soak_damage.damage(Path(name), args.files, args.requests or 400, args.seed)
        return faults(Path(name), args.requests or 24000, args.share or 0.3, args.transport)


def kills(folder: Path, ground: Ground, n_kills: int, n_requests: int, share: float, seed: int, transport: str) -> int:
    """kill -9 at random instants: a quarter while it starts, the others so many responses later; then resume."""
    dice, log = random.Random(seed), folder / "seen.log"
    pace_s = n_kills * 0.5 * CONCURRENCY / n_requests  # a reply: some are in flight at every kill
    with server("--delay", f"{pace_s:.3f}", "--log", str(log), "--faults", json.dumps(mix(share))) as url:
        settings, config = ground(folder, url, n_requests, "engine.timeouts.idle_s=1", f"engine.transport={transport}")
        done: set[str] = set()
        began, with_work, start_up_s = time.monotonic(), 0, 0.0
        for nth in range(n_kills):
            process = sweep(config)
            if nth == 0:
                start_up_s = until_more_than(0, settings, process)
            elif nth % 4 == 0:
                time.sleep(dice.uniform(0.0, start_up_s))
            else:
                more = dice.uniform(0.0, 2 * (n_requests - len(done)) / (n_kills - nth + 1))
                until_more_than(len(done) + int(more), settings, process)
                time.sleep(dice.uniform(0.0, pace_s))
            over = process.poll() is not None
            process.kill()
            process.communicate()
            now = responses(settings)
            if not done <= now:
                return broken(f"kill {nth}: {len(done - now)} responses that were reported are gone")
            with_work += len(now) > len(done)
            done = now
            if settings_exist(settings):
                check_invariants(settings)
            if over:
                print(f"  the sweep was over before kill {nth}; the rest hit a resume with nothing to do", flush=True)
                break
            if nth % 20 == 19:
                print(f"  {nth + 1} kills, {len(done)} responses, {time.monotonic() - began:.0f} s", flush=True)
        last = sweep(config)
        out, err = last.communicate()
        n_killed = nth + 1
    check_invariants(settings)
    seen, stored = len(log.read_text().split()), query(settings, "SELECT count(*) FROM attempts")[0][0]
    print(
        f"{n_killed} kills ({with_work} while responses were landing), then exit {last.returncode}: {states(settings)}"
    )
    print(f"requests the server saw {seen}, attempts stored {stored}: {seen - stored} sent but not stored, "
          f"allowed {n_killed * CONCURRENCY}")  # fmt: skip
    if last.returncode not in (0, 4) or sum(states(settings).values()) != n_requests or "pending" in states(settings):
        return broken(f"not every request has an outcome\n{out}\n{err}")
    if not 0 <= seen - stored <= n_killed * CONCURRENCY:
        return broken("more was sent again than was in flight")
    print("integrity_check ok after every kill, nothing reported done was lost, one outcome per request")
    return 0


def faults(folder: Path, n_requests: int, share: float, transport: str) -> int:
    """A server that fails on `share` of its tries; the runner's memory is sampled meanwhile."""
    with server("--delay", "0.002", "--faults", json.dumps(mix(share))) as url:
        settings, config = experiment(
            folder, url, n_requests, "engine.timeouts.idle_s=1", f"engine.transport={transport}",
            "limits.concurrency=64",
        )  # fmt: skip
        process, rss = sweep(config), []
        while process.poll() is None:
            time.sleep(1.0)
            rss.append(resident_mib(process.pid))
        out, err = process.communicate()
    check_invariants(settings)
    rss = [value for value in rss if value]
    found, tries = states(settings), query(settings, "SELECT count(*), sum(error_type IS NOT NULL) FROM attempts")[0]
    print(f"exit {process.returncode}: {found}; {tries[0]} attempts, {tries[1]} of them failed")
    for kind, n in query(settings, "SELECT error_type, count(*) FROM attempts GROUP BY 1 ORDER BY 2 DESC"):
        print(f"  {kind or 'answered'}: {n}")
    tenth = max(1, len(rss) // 10)
    early, late = max(rss[tenth : 2 * tenth] or rss), max(rss[-tenth:])
    print(f"resident memory {early:.0f} MiB after a tenth, {late:.0f} MiB at the end, most {max(rss):.0f} MiB")
    if process.returncode not in (0, 4) or sum(found.values()) != n_requests or "pending" in found:
        return broken(f"not every request has an outcome\n{out}\n{err}")
    if late > 1.25 * early:
        return broken("memory grew")
    return 0


def sweep(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kvt_async", "sweep", "-c", str(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def mix(share: float) -> dict[str, float]:
    return {kind: share / len(FAULTS) for kind in FAULTS}


def settings_exist(settings: Settings) -> bool:
    try:
        query(settings, "SELECT 1 FROM responses LIMIT 1")
    except KvtError:  # killed before there was a database
        return False
    return True


def responses(settings: Settings) -> set[str]:
    if not settings_exist(settings):
        return set()
    return {row[0] for row in query(settings, "SELECT request_id FROM responses")}


def until_more_than(n: int, settings: Settings, process: subprocess.Popen[str]) -> float:
    """Seconds until more than `n` responses are committed, or the process ended."""
    began = time.monotonic()
    while len(responses(settings)) <= n and process.poll() is None:
        time.sleep(0.02)
    return time.monotonic() - began


def resident_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    sys.exit(main())
