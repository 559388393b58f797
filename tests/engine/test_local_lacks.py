"""What this machine lacks is named as its own: no request is given up for it that a rerun would not send."""

import asyncio
import errno
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from kvt_async.bench.load_sender import OUTAGE_S, load_breaker
from kvt_async.contract.errors import ErrorType, GuardError, LocalError
from kvt_async.contract.settings import Retry
from kvt_async.engine.send import pauses
from kvt_async.engine.transport.local_lacks import OTHER_FILES, cause_here, check_files
from kvt_async.records import Json
from kvt_async.sweep.sweep import SweepOptions, run
from tests.engine.sending import Recorder, against, send_one
from tests.servers.fault_server import FaultServer, Seen, Step, Wire, answer, reply, stall, status, stream
from tests.worlds import query, states, sweep_settings, until

pytestmark = pytest.mark.usefixtures("every_transport")
RETRY: Json = {"retry": {"max_attempts": 2, "initial_s": 0.05}}


class Descriptors:
    """Takes all file descriptors that this process may open, but a few."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __enter__(self) -> "Descriptors":
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 40, self.limits[1]))
        self.held: list[int] = []
        try:
            while True:
                self.held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for _ in range(self._left):
                os.close(self.held.pop())
        return self

    def give_back(self) -> None:
        while self.held:
            os.close(self.held.pop())

    def __exit__(self, *error: object) -> None:
        self.give_back()
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)


async def test_a_request_that_finds_no_file_descriptor_waits_for_one_and_nothing_of_it_is_recorded() -> None:
    async with against(answer("Paris"), limits=RETRY) as (server, sender):
        with Descriptors(0) as taken:
            sending = asyncio.create_task(send_one(sender, server))
            await until(lambda: sender.room.lacking)
            taken.give_back()
            outcome = await sending
    assert outcome.last is not None
    assert outcome.last.reply is not None
    assert (outcome.last.attempt_idx, sender.retries) == (0, 0)
    (reason,) = sender.room.lacking
    assert "files" in reason
    assert "ulimit -n" in reason


async def test_where_nothing_can_be_sent_at_all_the_run_stops_and_says_what_is_lacking() -> None:
    async with against(answer("Paris"), limits=RETRY) as (server, sender):
        with Descriptors(0):
            outcome = await send_one(sender, server)
        assert (outcome.last, outcome.give_up) == (None, None)
        assert sender.breaker.tripped.is_set()
        assert sender.breaker.ending == "local"
        assert "ulimit -n" in sender.breaker.reason
        assert server.seen == []


async def test_a_page_and_a_probe_say_the_same(every_transport: str) -> None:
    async with against(answer("Paris")) as (server, sender):
        with Descriptors(0):
            with pytest.raises(LocalError, match="files"):
                await sender.pages.get_json(f"{server.base_url}/models")
            with pytest.raises(LocalError, match="files"):
                await sender.probe(server.base_url, "/chat/completions", b"{}")
    assert LocalError.exit_code == GuardError.exit_code == 3


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN])
def test_ports_memory_and_the_network_are_ours(code: int) -> None:
    assert cause_here(OSError(code, os.strerror(code))) is not None
    wrapped = ConnectionError("can't connect")
    wrapped.__cause__ = OSError(code, os.strerror(code))
    assert cause_here(wrapped) is not None


def test_a_name_service_that_gives_no_answer_is_ours_and_a_name_that_is_none_is_not() -> None:
    assert cause_here(socket.gaierror(socket.EAI_AGAIN, "Temporary failure")) is not None
    assert cause_here(socket.gaierror(socket.EAI_NONAME, "Name or service not known")) is None


@pytest.mark.parametrize(
    "code", [errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH]
)
def test_what_another_host_does_is_not_ours(code: int) -> None:
    assert cause_here(OSError(code, os.strerror(code))) is None
    assert cause_here(ValueError("x")) is None


def test_a_bench_waits_as_long_for_a_server_that_is_gone_as_it_says() -> None:
    assert load_breaker(Retry(max_attempts=5)).outage_s == OUTAGE_S


def test_more_in_flight_than_files_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 64))
    check_files(64 - OTHER_FILES, "x", "Ask for {most}")
    with pytest.raises(GuardError, match="may open 64 files") as raised:
        check_files(65 - OTHER_FILES, "limits.concurrency", "Set it to at most {most}")
    assert "24" in str(raised.value)
    assert "ulimit -Hn" in str(raised.value)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, resource.RLIM_INFINITY))
    check_files(10_000, "x", "Ask for {most}")


async def test_a_try_that_times_out_over_a_stop_of_this_process_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "LEAST_S", 0.3)
    async with against(stall(), answer("Paris"), timeouts={"ttfb_s": 0.2}) as (server, sender):
        sending = asyncio.create_task(send_one(sender, server, recorder := Recorder()))
        await until(lambda: server.seen)
        time.sleep(0.4)  # noqa: ASYNC251 - nothing of this process runs, as after Ctrl-Z
        outcome = await sending
    assert [attempt.error_type for attempt in recorder.attempts] == [ErrorType.TTFB_TIMEOUT]
    assert outcome.reply is not None  # though max_attempts is 1


async def test_a_try_that_times_out_while_this_process_runs_counts() -> None:
    async with against(stall(), answer("Paris"), timeouts={"ttfb_s": 0.2}) as (server, sender):
        outcome = await send_one(sender, server)
    assert outcome.give_up == "attempts_exhausted"


def killer(*words: bytes, delay_s: float = 0.0) -> Step:
    """Resets the connection of a prompt that holds one of the words, before it answers anything."""

    async def step(wire: Wire, request: Seen) -> None:
        if request.method == "GET":
            await status(200, {"data": [{"id": "reference"}]})(wire, request)
        elif any(word in request.body for word in words):
            wire.reset()
        else:
            await stream(reply("a"), delay_s=delay_s)(wire, request)

    return step


async def test_a_request_that_always_kills_its_connection_is_given_up_among_others_last_and_alone(
    tmp_path: Path, every_transport: str
) -> None:
    async with FaultServer(killer(b"Fact 11:", b"Fact 3:")) as server:
        settings = sweep_settings(
            tmp_path, server.base_url, "kv.apply.via=none", "kv.control_repeats=0", "limits.retry.max_attempts=3",
            "limits.retry.initial_s=0.2", f"engine.transport={every_transport}",  # outages of a second
        )  # fmt: skip
        report = await run(settings, options=SweepOptions(quiet=True))
        assert (report.responses, report.failures, report.pending, report.exit_code) == (30, 6, 0, 4)
        again = await run(settings, options=SweepOptions(quiet=True, retry_failed=True))  # nothing but these
        assert (again.responses, again.failures, again.pending, again.exit_code) == (30, 6, 0, 4)
    told = query(settings, "SELECT DISTINCT error_type FROM attempts WHERE error_type NOT NULL")
    assert told == [("ConnectionError",)]


async def test_a_server_that_is_gone_still_costs_no_request(tmp_path: Path, every_transport: str) -> None:
    gone = asyncio.Event()

    async def step(wire: Wire, request: Seen) -> None:
        if gone.is_set() and request.method == "POST":
            wire.reset()
            return
        await killer()(wire, request)
        if len(server.seen) > 20:
            gone.set()

    async with FaultServer(step) as server:
        settings = sweep_settings(
            tmp_path, server.base_url, "kv.apply.via=none", "kv.control_repeats=0", "limits.retry.max_attempts=3",
            f"engine.transport={every_transport}",
        )  # fmt: skip
        report = await run(settings, options=SweepOptions(quiet=True))
    assert (report.failures, report.exit_code) == (0, 5)
    assert report.pending > 0


@pytest.mark.parametrize("files", [64, 90])
def test_a_sweep_with_few_file_descriptors_gives_nothing_up(tmp_path: Path, files: int, every_transport: str) -> None:
    """64: refused before the start. 90: as many as are asked for, but others hold most of them."""

    def few() -> None:
        for number in range(32, 90):  # by number, for the limit is one of numbers: 58 of the 90 are held
            os.dup2(0, number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    with served(killer(delay_s=0.05)) as url:
        settings = sweep_settings(
            tmp_path, url, "kv.apply.via=none", "kv.control_repeats=0", "limits.concurrency=32",
            f"engine.transport={every_transport}", n=60,
        )  # fmt: skip
        config = tmp_path / "c.yaml"
        config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        ended = subprocess.run(
            [sys.executable, "-m", "kvt_async", "sweep", "-c", str(config)],
            capture_output=True, text=True, timeout=60, preexec_fn=few, close_fds=False, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    assert "Traceback" not in ended.stderr
    assert f"{files} files" in ended.stderr
    assert "ulimit" in ended.stderr
    if files == 64:
        assert ended.returncode == 3
    else:
        assert ended.returncode in (0, 3)
        assert "failure" not in states(settings)
        assert ended.returncode == 3 or states(settings) == {"response": 180}


@contextmanager
def served(step: Step) -> Iterator[str]:
    """A FaultServer on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = FaultServer(step)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server.base_url
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
