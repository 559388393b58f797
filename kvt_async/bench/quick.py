"""`kvt bench quick URL`: from a URL alone to a believed answer in under two minutes, and to the command behind it."""

import asyncio
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from kvt_async.bench.bench import BenchOptions, execute
from kvt_async.bench.first_look import FirstLook, Wish, base_url, look
from kvt_async.bench.messages import BenchReport
from kvt_async.contract.files import write_whole
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings
from kvt_async.contract.urls import public_url

SHARES = 5  # of that time a load gets one at most
START, FACTOR, MOST_LOADS = 1, 4, 6
PATIENCE = {"ttfb_s": 1 / 3, "idle_s": 1 / 3, "total_s": 1 / 2}  # of that time: a server that hangs does not hold it up
CONFIG_NAME = "quick.yaml"
PRECISE = ("--sweep-concurrency {loads}", "--repeats 3", "--duration 60")


@dataclass(frozen=True, slots=True)
class Quick:
    """A quick bench that was sent: what was found before, its settings, and the runner's report."""

    look: FirstLook
    settings: Settings
    report: BenchReport
    config: Path  # with which it is made precise

    def next_command(self) -> str:
        """The ladder again as `kvt bench` has it: longer, with repeats, so that intervals are of runs."""
        loads = ",".join(dict.fromkeys(str(stage["load"]).rpartition(" ")[2] for stage in self.report.stages))
        return " ".join(["kvt bench", "-c", shlex.quote(str(self.config)), *PRECISE]).format(loads=loads or "1,4,16")

    def as_json(self) -> dict[str, Any]:
        """Under `quick` of --json."""
        return {
            "url": public_url(self.look.base_url),
            "model": self.look.model,
            "tokenizer": self.look.tokenizer,
            "streams": self.look.streams,
            "notes": self.look.notes,
            "next": self.next_command(),
        }


def quick(wish: Wish, within_s: float, say: Callable[[str], None], *, quiet: bool, as_json: bool) -> Quick:
    """Look, then climb: 1, 4, 16, ... in flight, until output levels off or the time is over. A group of its own.

    Raises KvtError as `look` and `kvt bench` do.
    """
    group = group_name(base_url(wish.url), datetime.now(UTC))
    ladder = f"bench.auto={{start: {START}, factor: {FACTOR}, max_stages: {MOST_LOADS}}}"
    patience = [f"engine.timeouts.{name}={within_s * share:.2f}" for name, share in PATIENCE.items()]
    shared = [f"experiment.exp_group_id={group}", ladder, "bench.warm_up.requests=1", *patience]
    say(f"asking {public_url(base_url(wish.url))} for its models and a first answer ...")
    sight = asyncio.run(look(wish, shared))
    streams = "streams" if sight.streams else "does not stream"
    say(f"{public_url(sight.base_url)}: model {sight.model}, {streams}, {sight.latency_s:.2g} s for a first request")
    for note in sight.notes:
        say(f"  {note}")
    overrides = [*sight.overrides, "bench.sweep_concurrency=auto", f"bench.max_s={within_s / SHARES:.2f}"]
    settings = load_settings(None, overrides)
    report = execute(settings, BenchOptions(quiet=quiet, as_json=as_json, within_s=within_s))
    config = run_paths(settings.output.runs_dir, group, settings.db.path).run_dir / CONFIG_NAME
    write_whole(config, _config([o for o in sight.overrides if o not in patience], f"{group}-precise"))
    return Quick(sight, settings, report, config)


def group_name(url: str, now: datetime) -> str:
    """'quick-localhost-8000-20261201-101500'; the host cut where a name has room for no more."""
    parts = urlsplit(url)
    host = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{parts.hostname}{f'-{parts.port}' if parts.port else ''}").strip("-.")
    return f"quick-{host[:80]}-{now:%Y%m%d-%H%M%S}"


def _config(overrides: Sequence[str], group: str) -> str:
    """A config that holds what the look has found, and neither a load nor how long one lasts."""
    tree: dict[str, Any] = {}
    for override in [*overrides, f"experiment.exp_group_id={group}"]:
        key, _, value = override.partition("=")
        *parents, name = key.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = yaml.safe_load(value)
    head = "# What `kvt bench quick` found; a load is for the command line to give.\n"
    return head + yaml.safe_dump(tree, sort_keys=False)
