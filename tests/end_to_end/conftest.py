"""A real reference server for the whole session, and kvt as users call it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvt_async.demo import reference_server
from tests.forked_kvt import run_kvt

Kvt = Callable[..., subprocess.CompletedProcess[str]]

SMALL = (
    "dataset.params={contexts: 24, min_tokens: 128, max_tokens: 512}",
    "binning.n_bins=3",
    "binning.n_per_bin=4",
    "analysis.resamples=2000",
)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with reference_server() as url:
        yield url


@pytest.fixture
def kvt(tmp_path: Path) -> Kvt:
    """Run `kvt ARGS...` in a fresh working directory; `env` adds variables."""
    return kvt_in(tmp_path)


def kvt_in(folder: Path, *, forked: bool = True) -> Kvt:
    """No pictures, which take seconds each time, unless a test looks at them: CHARTS among its arguments. Python is
    started anew with `forked` False, or where `env` tells it how to start."""

    def run(*args: str, env: dict[str, str] | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("KVT__") and k != "MODEL_NAME"}
        whole = {**clean, "KVT__analysis__charts": "false", **(env or {})}
        if forked and not any(name.startswith("PYTHON") for name in env or {}):
            return run_kvt(args, folder, whole, timeout=timeout)
        return subprocess.run(
            [sys.executable, "-m", "kvt_async", *args],
            cwd=folder,
            env=whole,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


CHARTS = ("--override", "analysis.charts=true")


def overrides(*pairs: str) -> list[str]:
    return [part for pair in pairs for part in ("--override", pair)]


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed that went well."""
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
