"""One runner to a database; the lock says who, and dies with its owner."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvt_async.contract.errors import StoreError
from kvt_async.store.lock import hold, holder

HOLD = """
import sys, time
from pathlib import Path
from kvt_async.store.lock import hold
with hold(Path(sys.argv[1]), "kvt sweep -c x.yaml", "2026-01-01T00:00:00Z"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_runner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "k.sqlite")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_runner_is_refused_with_who_holds_the_database(
    tmp_path: Path, other_runner: subprocess.Popen[str]
) -> None:
    with pytest.raises(StoreError) as caught, hold(tmp_path / "k.sqlite", "kvt run", "now"):
        pass
    text = str(caught.value)
    assert f"process {other_runner.pid}" in text
    assert "kvt sweep -c x.yaml" in text
    assert "2026-01-01T00:00:00Z" in text
    assert caught.value.exit_code == 3


def test_the_lock_dies_with_its_owner(tmp_path: Path, other_runner: subprocess.Popen[str]) -> None:
    os.kill(other_runner.pid, signal.SIGKILL)
    other_runner.wait()
    with hold(tmp_path / "k.sqlite", "kvt run", "now"):
        found = holder(tmp_path / "k.sqlite")
        assert found is not None
        assert found.pid == os.getpid()


def test_anybody_can_see_who_holds_it_without_disturbing(tmp_path: Path, other_runner: subprocess.Popen[str]) -> None:
    found = holder(tmp_path / "k.sqlite")
    assert found is not None
    assert (found.pid, found.command) == (other_runner.pid, "kvt sweep -c x.yaml")


def test_nobody_holds_it_before_and_after(tmp_path: Path) -> None:
    assert holder(tmp_path / "k.sqlite") is None
    with hold(tmp_path / "k.sqlite", "kvt run", "now"):
        pass
    assert holder(tmp_path / "k.sqlite") is None
    with hold(tmp_path / "k.sqlite", "kvt run", "now"):
        pass


def test_a_child_of_the_owner_does_not_keep_the_lock(tmp_path: Path) -> None:
    with hold(tmp_path / "k.sqlite", "kvt run", "now"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False)
    try:
        with hold(tmp_path / "k.sqlite", "kvt run", "now"):
            assert child.poll() is None
    finally:
        child.kill()
        child.wait()
