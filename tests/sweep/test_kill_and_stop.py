"""kill -9, Ctrl-C, a server that dies, a disk that closes: nothing done is lost, the same command does the rest."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvt_async.contract.errors import StoreError
from kvt_async.contract.settings import Settings
from kvt_async.status import status
from kvt_async.store.lock import hold
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.sweep_process import config_of, kvt, wait_for
from tests.worlds import check_invariants, db_of, query, states, sweep_settings, until

CONCURRENCY = 6


class Server:
    """The scripted server as a process that can be stopped and started on its port."""

    def __init__(self, *args: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "tests.servers.openai_server", "--port", str(port), *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(re.findall(r":(\d+)/", self.url)[0])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "seen.log"


@pytest.fixture
def server(log: Path) -> Iterator[Server]:
    one = Server("--delay", "0.01", "--log", str(log))
    yield one
    one.kill()


def sixty_examples(tmp_path: Path, url: str, *overrides: str) -> Settings:
    fast_retry = ("limits.retry.max_attempts=3", "limits.retry.initial_s=0.02", "limits.retry.max_elapsed_s=5")
    return sweep_settings(
        tmp_path, url, f"limits.concurrency={CONCURRENCY}", "kv.apply={via: none}", "kv.policy=label", *fast_retry,
        *overrides, n=60,
    )  # fmt: skip


def test_killed_again_and_again_it_finishes_exactly_the_rest(tmp_path: Path, server: Server, log: Path) -> None:
    settings = sixty_examples(tmp_path, server.url, "db.flush_interval_s=0.5")  # far longer than a request takes
    config, kills = config_of(settings, tmp_path), 3
    for n in range(kills):
        process = kvt(config)
        wait_for(settings, 30 + 60 * n, process)
        done_before = {row[0] for row in query(settings, "SELECT request_id FROM responses")}
        process.kill()
        _, err = process.communicate()
        check_invariants(settings)
        assert done_before <= {row[0] for row in query(settings, "SELECT request_id FROM responses")}
        assert ("killed before" in err) == (n > 0), err
    process = kvt(config)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert re.search(rf"killed before: session .*; at most {CONCURRENCY * kills} requests", err), err
    assert states(settings) == {"response": 240}
    check_invariants(settings)
    seen = Counter(log.read_text().split())
    twice = sum(seen.values()) - 240
    assert 0 <= twice <= kills * CONCURRENCY
    assert query(settings, "SELECT reason FROM session_ends") == [("finished",)]


def test_a_server_that_dies_ends_the_run_with_5_gives_nothing_up_and_a_later_run_completes(
    tmp_path: Path, server: Server
) -> None:
    settings = sixty_examples(tmp_path, server.url)
    config = config_of(settings, tmp_path)
    process = kvt(config)
    wait_for(settings, 60, process)
    server.kill()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 5, err
    assert "nothing was given up" in out
    assert states(settings).get("failure", 0) == 0
    assert query(settings, "SELECT reason FROM session_ends") == [("server",)]
    check_invariants(settings)
    again = Server("--delay", "0.001", port=server.port)
    try:
        process = kvt(config)
        _, err = process.communicate(timeout=60)
    finally:
        again.kill()
    assert process.returncode == 0, err
    assert states(settings) == {"response": 240}


def test_ctrl_c_drains_what_is_in_flight_and_exits_130(tmp_path: Path, server: Server, log: Path) -> None:
    settings = sixty_examples(tmp_path, server.url)
    config = config_of(settings, tmp_path)
    process = kvt(config)
    wait_for(settings, 50, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "stopping" in err
    assert "run the same command again to resume" in out
    assert "Traceback" not in err
    assert query(settings, "SELECT reason, exit_code FROM session_ends") == [("interrupted", 130)]
    assert query(settings, "SELECT count(*) FROM responses")[0][0] == len(log.read_text().split())  # nothing was lost
    process = kvt(config)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(log.read_text().split()) == 240  # and nothing was sent twice


@pytest.mark.parametrize(("grace_s", "signals"), [(60, 2), (0.2, 1), (0, 1)])
async def test_a_second_ctrl_c_or_the_end_of_the_grace_period_cancels_what_is_in_flight(
    tmp_path: Path, grace_s: float, signals: int
) -> None:
    async with serving(Script(delay_s=60)) as (fake, url):
        settings = sixty_examples(tmp_path, url, f"limits.grace_s={grace_s}")
        sweep = asyncio.create_task(run(settings, options=SweepOptions(quiet=True)))
        await until(lambda: fake.in_flight == CONCURRENCY)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.02)
        report = await asyncio.wait_for(sweep, 10)
    assert (report.exit_code, report.responses, report.pending) == (130, 0, 240)
    assert states(settings).keys() <= {"pending"}
    assert query(settings, "SELECT end_state, count(*) FROM attempts") == [("cancelled", CONCURRENCY)]
    assert query(settings, "SELECT reason, exit_code FROM session_ends") == [("interrupted", 130)]
    check_invariants(settings)


async def test_ctrl_c_wakes_requests_that_wait_for_their_next_try(tmp_path: Path) -> None:
    async with serving(Script(faults={"http_500": 1.0})) as (fake, url):
        settings = sixty_examples(
            tmp_path, url, "limits.retry.initial_s=100", "limits.retry.max_wait_s=100", "limits.retry.max_elapsed_s=1e6"
        )
        sweep = asyncio.create_task(run(settings, options=SweepOptions(quiet=True)))
        await until(lambda: len(fake.bodies) > 3 * CONCURRENCY)  # sleepers hold no slot: others are sent meanwhile
        os.kill(os.getpid(), signal.SIGINT)
        report = await asyncio.wait_for(sweep, 5)
    assert (report.exit_code, report.failures) == (130, 0)
    assert query(settings, "SELECT count(*) FROM attempts") == [(len(fake.bodies),)]


def test_a_second_runner_is_refused_while_the_first_works_and_status_says_who(tmp_path: Path) -> None:
    slow = Server("--delay", "0.3")
    try:
        settings = sixty_examples(tmp_path, slow.url)
        config = config_of(settings, tmp_path)
        first = kvt(config)
        wait_for(settings, 5, first)
        second = kvt(config)
        _, err = second.communicate(timeout=20)
        now = status(settings)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=20)
    finally:
        slow.kill()
    assert second.returncode == 3
    assert f"process {first.pid}" in err
    assert now["running"]
    assert f"process {first.pid}" in now["holder"]
    assert 0 < now["responses"] < 240
    assert now["responses"] + now["failures"] + now["pending"] == now["planned"] == 240
    assert now["invariants_hold"]
    assert not status(settings)["running"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_became_read_only_is_refused_with_3(tmp_path: Path, server: Server) -> None:
    settings = sixty_examples(tmp_path, server.url)
    with hold(db_of(settings), "x", "now"):
        pass
    db_of(settings).parent.chmod(0o500)
    process = kvt(config_of(settings, tmp_path))
    _, err = process.communicate(timeout=20)
    assert process.returncode == 3, err


async def test_a_database_that_is_deleted_under_the_run_stops_it(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.01)) as (fake, url):
        settings = sixty_examples(tmp_path, url)
        sweep = asyncio.create_task(run(settings, options=SweepOptions(quiet=True)))
        await until(lambda: len(fake.bodies) > 20)
        db_of(settings).unlink()
        with pytest.raises(StoreError, match="moved or deleted"):
            await asyncio.wait_for(sweep, 10)
        await asyncio.sleep(0.05)
        assert fake.in_flight == 0
