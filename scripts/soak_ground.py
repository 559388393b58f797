"""What all soaks stand on: the scripted server of the tests in a process of its own, an experiment, and a verdict."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from kvt_async.contract.settings import Settings
from tests.worlds import sweep_settings, write_examples

CONCURRENCY = 8


TASKS, SERIES, BUDGETS, SAMPLES = 4, 3, 5, 3
LEVELS = SERIES * (BUDGETS - 1) + 2  # full cache and its repeat besides


def experiment(folder: Path, url: str, n_requests: int, *overrides: str) -> tuple[Settings, Path]:
    """Four levels as labels over a quarter of the requests each."""
    settings = sweep_settings(
        folder, url, f"limits.concurrency={CONCURRENCY}", "kv.apply={via: none}", "kv.policy=label",
        "limits.retry={max_attempts: 6, initial_s: 0.02, max_elapsed_s: 60}", *overrides, n=n_requests // 4,
    )  # fmt: skip
    return settings, _config_of(folder, settings)


def suite(folder: Path, url: str, n_requests: int, *overrides: str) -> tuple[Settings, Path]:
    """TASKS tasks, SERIES series at BUDGETS budgets as labels, SAMPLES answers to each example."""
    n = n_requests // (TASKS * LEVELS * SAMPLES)
    files = [write_examples(folder / f"task{at}.jsonl", n, words=20 + 5 * at) for at in range(TASKS)]
    tasks = ", ".join(f"{{dataset: {{task: {file.stem}, path: '{file}'}}}}" for file in files)
    policies = ", ".join(f"label{at}" for at in range(SERIES))
    budgets = ", ".join(f"{1 - at / BUDGETS:g}" for at in range(BUDGETS))
    settings = sweep_settings(
        folder, url, f"limits.concurrency={CONCURRENCY}", "kv.apply={via: none}", f"kv.policies=[{policies}]",
        f"kv.budgets=[{budgets}]", f"tasks=[{tasks}]", f"decoding.samples={SAMPLES}", "analysis.guard=0.99",
        "limits.retry={max_attempts: 6, initial_s: 0.02, max_elapsed_s: 60}", *overrides, n=n,
    )  # fmt: skip
    return settings, _config_of(folder, settings)


def _config_of(folder: Path, settings: Settings) -> Path:
    config = folder / "experiment.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    return config


@contextmanager
def server(*args: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.servers.openai_server", *args]
    root, quiet = Path(__file__).parents[1], subprocess.DEVNULL  # it would tell of every client that was killed
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True, cwd=root) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def broken(what: str) -> int:
    print(f"BROKEN: {what}", file=sys.stderr)
    return 1
