"""via: launch over four levels of the reference server: what a user of a server without budgets per request does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kvt_async.contract.settings import Settings
from kvt_async.records import Run
from kvt_async.sweep.sweep import SweepOptions, run
from kvt_async.ways.launch import Launch
from kvt_async.ways.launch_command import LaunchCommand
from kvt_async.ways.levels import make_levels
from tests.sweep_process import config_of, kvt, wait_for
from tests.ways.test_launch import alive
from tests.worlds import check_invariants, db_of, query, states, sweep_settings

QUIET = SweepOptions(quiet=True)
SERVER = f"{sys.executable} -m kvt_async.serve --port {{port}} --prefill-cache-mb {{params.mb}}"


def launching(folder: Path, *overrides: str, command: str = SERVER, port: int = 0, n: int = 6) -> Settings:
    """Four levels, each its own server: what differs is the memory for prefills."""
    levels = ", ".join(
        f"{{policy: kept, budget: {bits}, unit: bits, params: {{mb: {bits}}}}}" for bits in (16, 8, 4, 2)
    )
    return sweep_settings(
        folder, f"http://127.0.0.1:{port}/v1", f"kv.apply={{via: launch, command: '{command}', grace_s: 2, "
        "env: {KVT_LEVEL: '{budget}'}}", f"kv.levels=[{levels}]", "kv.evidence={configured: true}",
        "kv.control_repeats=0", *overrides, n=n,
    )  # fmt: skip


def gone(marker: str, within_s: float = 8.0) -> bool:
    until = time.monotonic() + within_s
    while alive(marker) and time.monotonic() < until:
        time.sleep(0.05)
    return alive(marker) == []


async def test_four_levels_have_four_servers_on_a_port_that_was_chosen_and_none_is_left(tmp_path: Path) -> None:
    settings = launching(tmp_path)
    report = await run(settings, options=QUIET)
    assert (report.exit_code, states(settings)) == (0, {"response": 24})
    check_invariants(settings)
    urls = {row[0] for row in query(settings, "SELECT DISTINCT endpoint FROM attempts")}
    assert len(urls) == 1
    port = urls.pop().removesuffix("/v1").rpartition(":")[2]
    assert int(port) > 0
    assert gone(f"--port {port}", 0.5)
    assert len(list((tmp_path / "runs/g/launch").iterdir())) == 4
    assert (await run(settings, options=QUIET)).session_id is None


def test_kill_9_of_kvt_leaves_no_server_and_the_next_run_goes_on(tmp_path: Path, unused_tcp_port: int) -> None:
    settings = launching(tmp_path, port=unused_tcp_port, n=30)
    process = kvt(config_of(settings, tmp_path))
    wait_for(settings, 20, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone(f"--port {unused_tcp_port}")
    check_invariants(settings)
    again = kvt(config_of(settings, tmp_path))
    _out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert states(settings) == {"response": 4 * 30}
    assert gone(f"--port {unused_tcp_port}")


def unread(port: int) -> int:
    """Connections to 127.0.0.1:`port` on which bytes lie that the server has not read (Linux)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[3] == "01" and int(row[1][9:], 16) == port and int(row[4][9:], 16) > 0 for row in rows)


def test_a_server_that_is_killed_under_its_level_is_started_again_and_everything_is_answered(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    paced = "limits.requests_per_minute=600"  # 3 s a level: requests are still to come when the server stops
    settings = launching(
        tmp_path, paced, "limits.retry.max_attempts=2", "limits.retry.max_elapsed_s=2", port=unused_tcp_port, n=30
    )
    process = kvt(config_of(settings, tmp_path))
    wait_for(settings, 3, process)
    found = subprocess.run(
        ["pgrep", "-f", f"^{sys.executable} -m kvt_async.serve --port {unused_tcp_port} "],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    server = int(found.stdout.split()[0])
    os.kill(server, signal.SIGSTOP)  # what is sent from now on is certainly under way when it dies
    until, in_flight = time.monotonic() + 20, 0
    while in_flight < 2 and time.monotonic() < until:
        time.sleep(0.01)
        in_flight = unread(unused_tcp_port)
    os.kill(server, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert "starting it again (1 of 2)" in err
    assert (process.returncode, states(settings)) == (0, {"response": 4 * 30})
    told = [json.loads(line) for line in (db_of(settings).parent / "run.log").read_text("utf-8").splitlines()]
    assert [line["restart"] for line in told if line["event"] == "launched"].count(1) == 1
    tries = query(settings, """SELECT request_id, group_concat(ifnull(error_type, 'answered'), ' ') FROM (SELECT * FROM
        attempts ORDER BY request_id, attempt_idx) GROUP BY request_id HAVING count(error_type) > 0""")  # fmt: skip
    assert len(tries) >= in_flight >= 2
    for _, said in tries:  # the attempts say it themselves: lost with the server, answered by the next one
        *failed, last = said.split()
        assert set(failed) <= {"ConnectionError", "StreamCut"}  # cut: its reply had begun
        assert last == "answered"
    assert sum(said.startswith("ConnectionError") for _, said in tries) >= in_flight
    assert gone(f"--port {unused_tcp_port}")


def test_levels_share_a_server_only_where_command_and_environment_are_equal(tmp_path: Path) -> None:
    same = f"{sys.executable} -m kvt_async.serve --port {{port}}"
    settings = Launch().with_port(launching(tmp_path, command=same))
    levels = make_levels(settings).levels
    assert LaunchCommand.of_level(settings, levels[0]).environment == {"KVT_LEVEL": "16.0"}
    servers = Launch().groups(settings, [Run("r", level, False) for level in levels])
    assert [len(runs) for runs in servers] == [1, 1, 1, 1]
