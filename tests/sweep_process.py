"""`kvt sweep` as a process of its own: what a test can kill."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import yaml

from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.settings import Settings
from tests.worlds import query


def config_of(settings: Settings, folder: Path) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    return path


def kvt(config: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kvt_async", "sweep", "-c", str(config), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(settings: Settings, n: int, process: subprocess.Popen[str], *, patience_s: float = 60.0) -> None:
    """Until `n` responses are committed."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        with suppress(MissingPrerequisiteError):  # there is no database yet
            if query(settings, "SELECT count(*) FROM responses")[0][0] >= n:
                return
        time.sleep(0.01)
    raise AssertionError(f"never saw {n} responses")
