"""via: launch. Each level's server is started, awaited, stopped with its children; nothing outlives kvt."""

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from kvt_async.contract.errors import ConfigError, DeadKnobError, ServerError
from kvt_async.contract.settings import Settings
from kvt_async.records import Run
from kvt_async.sweep.sweep import SweepOptions, run
from kvt_async.ways.launch import Launch
from kvt_async.ways.launch_command import LaunchCommand
from kvt_async.ways.levels import make_levels
from tests.sweep_process import config_of, kvt, wait_for
from tests.worlds import check_invariants, query, states, sweep_settings

QUIET = SweepOptions(quiet=True)
SERVER = (
    f"{sys.executable} -m tests.servers.openai_server --port {{port}} --version {{policy}}-{{budget}} --kept {{budget}}"
)


def launching(folder: Path, port: int, *overrides: str, command: str = SERVER, n: int = 6) -> Settings:
    return sweep_settings(
        folder, f"http://127.0.0.1:{port}/v1", f"kv.apply={{via: launch, command: '{command}', grace_s: 2}}",
        "kv.policy=kv", "kv.evidence={configured: true}", *overrides, n=n,
    )  # fmt: skip


def alive(marker: str) -> list[str]:
    """Command lines of processes that hold `marker`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if marker in line]


async def test_every_level_has_its_own_server_and_none_is_left_running(
    tmp_path: Path, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = launching(tmp_path, unused_tcp_port)
    report = await run(settings, options=QUIET)
    assert "the server's" not in capsys.readouterr().err
    assert (report.exit_code, states(settings)) == (0, {"response": 24})
    versions = query(settings, "SELECT json_extract(identity_json, '$.version.version') FROM server_snapshots "
                               "WHERE phase = 'start' ORDER BY taken_at, n")  # fmt: skip
    assert versions == [("full-1.0",), ("kv-0.2",), ("kv-0.5",), ("full-1.0",)]  # the canary wants the harshest second
    assert alive(f"--port {unused_tcp_port}") == []
    assert {path.name for path in (tmp_path / "runs/g/launch").iterdir()} == {
        "full.log", "full-repeat-1.log", "kv-0.5.log", "kv-0.2.log",
    }  # fmt: skip
    check_invariants(settings)
    assert (await run(settings, options=QUIET)).session_id is None


async def test_a_server_that_dies_under_its_level_is_started_again(
    tmp_path: Path, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ("limits.retry.max_attempts=2", "limits.retry.max_elapsed_s=2")
    command = f"{SERVER} --die-after 9"
    settings = launching(tmp_path, unused_tcp_port, "kv.budgets=[1.0]", "kv.control_repeats=0", *fast, command=command,
                         n=16)  # fmt: skip
    report = await run(settings, options=SweepOptions())
    assert (report.exit_code, states(settings)) == (0, {"response": 16})
    assert "starting it again (1 of 2)" in capsys.readouterr().err
    check_invariants(settings)


async def test_a_command_that_fails_is_said_with_the_end_of_its_log(tmp_path: Path, unused_tcp_port: int) -> None:
    command = f'{sys.executable} -c "import sys; print(1234567); sys.exit(3)"'
    settings = launching(tmp_path, unused_tcp_port, command=command)
    with pytest.raises(ServerError, match="exit code 3") as caught:
        await run(settings, options=QUIET)
    assert "1234567" in str(caught.value)
    assert caught.value.exit_code == 5
    missing = launching(tmp_path, unused_tcp_port, "experiment.exp_group_id=h", command="no-such-program-anywhere")
    with pytest.raises(ServerError, match="can't be started"):
        await run(missing, options=QUIET)


async def test_a_server_that_never_gets_ready_is_given_up_and_stopped(tmp_path: Path, unused_tcp_port: int) -> None:
    command = f"{sys.executable} -c 'import time; time.sleep(600)  # {unused_tcp_port}'".replace("'", "''")
    settings = launching(tmp_path, unused_tcp_port, command=command)
    kv = settings.kv.model_copy(update={"apply": settings.kv.apply.model_copy(update={"ready_timeout_s": 0.3})})
    with pytest.raises(ServerError, match="not ready"):
        await run(settings.model_copy(update={"kv": kv}), options=QUIET)
    assert alive(f"# {unused_tcp_port}") == []


def test_kill_9_of_kvt_leaves_no_server_behind(tmp_path: Path, unused_tcp_port: int) -> None:
    settings = launching(tmp_path, unused_tcp_port, command=f"{SERVER} --delay 0.2", n=40)
    process = kvt(config_of(settings, tmp_path))
    wait_for(settings, 2, process, patience_s=90)
    assert len(alive(f"--port {unused_tcp_port} --version")) == 2  # the keeper and the server
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 60  # a busy machine; nobody waits that long
    while alive(f"--port {unused_tcp_port} --version") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(f"--port {unused_tcp_port} --version") == []


# ---- the canary inside the first two levels


DEAD = f"{SERVER} --knob dead"


def by_level(settings: Settings) -> dict[str, int]:
    return dict(query(settings, "SELECT series || ' ' || kv_budget, count(*) FROM responses "
                                "JOIN requests USING (request_id) JOIN runs USING (run_id) GROUP BY 1"))  # fmt: skip


async def test_a_dead_knob_ends_the_sweep_at_the_second_server_and_full_cache_is_kept(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    settings = launching(tmp_path, unused_tcp_port, command=DEAD, n=3)
    with pytest.raises(DeadKnobError, match="full was sent and is kept, nothing of any other level was") as caught:
        await run(settings, options=QUIET)
    assert caught.value.exit_code == 3
    assert by_level(settings) == {"full 1.0": 3}
    asked = query(settings, "SELECT level, count(*) FROM probes WHERE verdict IS NULL GROUP BY 1 ORDER BY 1")
    assert asked == [("full", 12), ("kv 0.2", 6)]  # three prompts and three lookups of the canary's own
    assert query(settings, "SELECT verdict FROM probes WHERE verdict IS NOT NULL") == [("dead",)]
    assert {path.name for path in (tmp_path / "runs/g/launch").iterdir()} == {"full.log", "kv-0.2.log"}
    assert alive(f"--port {unused_tcp_port}") == []


async def test_after_a_dead_knob_the_same_command_asks_again_and_finishes_once_it_is_mended_or_allowed(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    settings = launching(tmp_path, unused_tcp_port, command=DEAD, n=3)
    with pytest.raises(DeadKnobError):
        await run(settings, options=QUIET)
    with pytest.raises(DeadKnobError):  # full cache is asked anew, for the canary alone
        await run(settings, options=QUIET)
    assert by_level(settings) == {"full 1.0": 3}
    report = await run(settings, options=replace(QUIET, allow_dead_knob=True))
    assert (report.exit_code, report.canary) == (0, "dead")
    assert sum(by_level(settings).values()) == 12
    check_invariants(settings)


async def test_a_sweep_that_was_stopped_between_its_levels_goes_on_without_another_canary(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    settings = launching(tmp_path, unused_tcp_port, n=3)
    await run(settings, options=replace(QUIET, limit=1))
    probes = query(settings, "SELECT count(*) FROM probes WHERE kind = 'canary' AND verdict IS NULL")
    report = await run(settings, options=QUIET)
    assert (report.exit_code, sum(by_level(settings).values())) == (0, 12)
    assert query(settings, "SELECT count(*) FROM probes WHERE kind = 'canary' AND verdict IS NULL") == probes
    verdicts = query(settings, "SELECT DISTINCT verdict, json_extract(detail_json, '$.asked_in') IS NOT NULL "
                               "FROM probes WHERE verdict IS NOT NULL ORDER BY 2")  # fmt: skip
    assert verdicts == [("alive", 0), ("alive", 1)]


async def test_a_port_that_something_else_listens_on_is_refused_before_anything_is_launched(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = launching(tmp_path, port)
        with pytest.raises(ConfigError, match="something listens there already") as caught:
            await run(settings, options=QUIET)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert not (tmp_path / "runs/g/launch").exists()


# ---- templates


def test_levels_with_equal_commands_share_a_server_and_ports_names_and_params_are_filled_in() -> None:
    settings = _settings("serve {model} --port {port} --host {host}")
    levels = make_levels(settings).levels
    words = LaunchCommand.of_level(settings, levels[0]).words
    assert words == ("serve", "reference", "--port", "7001", "--host", "127.0.0.1")
    assert [len(group) for group in Launch().groups(settings, [Run("r", level, False) for level in levels])] == [4]
    own = _settings("serve --budget {budget}")
    runs = [Run("r", level, False) for level in make_levels(own).levels]
    assert [len(group) for group in Launch().groups(own, runs)] == [1, 1, 1, 1]


def test_a_placeholder_without_a_value_is_a_config_error() -> None:
    settings = _settings("serve {params.dtype}")
    with pytest.raises(ConfigError, match=r"\{params.dtype\} has no value at level full"):
        LaunchCommand.of_level(settings, make_levels(settings).levels[0])


def _settings(command: str) -> Settings:
    from kvt_async.contract.load import load_settings

    apply = f"kv.apply={{via: launch, command: '{command}'}}"
    return load_settings(None, [apply, "engine.base_url=http://127.0.0.1:7001/v1", "model.name=reference"], environ={})
