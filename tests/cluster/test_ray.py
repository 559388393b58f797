"""A real Ray cluster of several nodes on this machine: nodes die under a sweep, and nothing is lost, left or told."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from tests.sweep_process import kvt
from tests.ways.test_launch import alive
from tests.ways.test_launch_reference import SERVER, launching
from tests.worlds import db_of

pytestmark = pytest.mark.cluster
MARKER = "--max-queue 4077"  # of the servers that these tests launch
SECRET = "sk-of-the-cluster-0123456789"
_ANSWERS = """SELECT r.request_id, p.text, p.finish_reason, p.usage_json, p.kv_evidence_json, g.reason FROM requests r
    LEFT JOIN responses p USING (request_id) LEFT JOIN give_ups g USING (request_id)"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without room, and nodes to come; on 127.0.0.1 alone."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("CLUSTER_API_KEY", SECRET)
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.1", "include_dashboard": False},
        shutdown_at_exit=False,
    )
    yield made
    for node in list(made.worker_nodes):
        made.remove_node(node, allow_graceful=False)
    made.head_node.kill_all_processes(check_alive=False, allow_graceful=False)


def _config(settings: Settings, folder: Path, address: str, **cluster: Any) -> Path:
    config = settings.model_dump(mode="json")
    config["engine"]["api_key_env"] = "CLUSTER_API_KEY"
    config["cluster"] = {
        "address": address,
        "resources": {"place": 1},
        "scratch": str(folder / "scratch"),
        "wait_s": 60,
        **cluster,
    }
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _shards(settings: Settings) -> list[Path]:
    return sorted((db_of(settings).parent / "shards").glob("*.sqlite"))


def _answers(databases: list[Path]) -> dict[str, tuple[Any, ...]]:
    """Outcome, text, usage and evidence by request_id; a request that is in two of them fails the test."""
    answers: dict[str, tuple[Any, ...]] = {}
    for db in databases:
        with closing(connect_for_reading(db)) as conn:
            for request_id, *rest in conn.execute(_ANSWERS):
                assert request_id not in answers
                usage = json.loads(rest[2]) if rest[2] else {}
                kv = {name: value for name, value in usage.get("kv", {}).items() if name != "prefill_cached"}
                answers[request_id] = (rest[0], rest[1], usage.get("completion_tokens"), kv, rest[4])
    return answers


def _wait(settings: Settings, n: int, process: subprocess.Popen[str]) -> None:
    """Until `n` responses have come here."""
    deadline, there = time.monotonic() + 120, 0
    while there < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        with suppress(MissingPrerequisiteError):  # a database is being made
            there = sum(row[0] is not None for row in _answers(_shards(settings)).values())
        time.sleep(0.1)


def _files_with(secret: str, *folders: Path) -> list[Path]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_nodes_that_die_in_mid_level_cost_nothing_and_leave_nothing(tmp_path: Path, cluster: Any) -> None:
    settings = launching(tmp_path, command=f"{SERVER} {MARKER}", n=60)
    alone = subprocess.run(
        [sys.executable, "-m", "kvt_async", "sweep", "-c", _alone(settings, tmp_path), "--quiet"], check=False
    )
    assert alone.returncode == 0
    nodes = [cluster.add_node(num_cpus=1, resources={"place": 1}, node_ip_address="127.0.0.1") for _ in range(3)]
    process = kvt(_config(settings, tmp_path, cluster.address, shards=3, pull_s=1))
    _wait(settings, 20, process)
    for n, node in enumerate(nodes[:2]):
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1, resources={"place": 1}, node_ip_address="127.0.0.1")
        _wait(settings, 60 + 40 * n, process)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (out, err)
    assert "goes on elsewhere" in err
    assert len(_shards(settings)) == 3
    here, there = _answers([tmp_path / "alone/g/kv_transition.sqlite"]), _answers(_shards(settings))
    assert there == here
    assert all(row[0] is not None for row in there.values())
    assert _verdicts(tmp_path / "runs/g") == _verdicts(tmp_path / "alone/g")
    _gone(MARKER)
    _gone(str(tmp_path / "scratch"))
    assert _files_with(SECRET, Path(cluster.head_node.get_session_dir_path()), tmp_path) == []


def _verdicts(group: Path) -> list[list[tuple[Any, ...]]]:
    """What `kvt all` makes of a group, but for what is measured in time."""
    ended = subprocess.run(
        [sys.executable, "-m", "kvt_async", "all", str(group), "--quiet"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert (group / "report.html").is_file()
    queries = (
        "SELECT run_id, bin_idx, n, acc_mean, acc_ci_low, acc_ci_high FROM bin_stats",
        "SELECT series, kv_budget, repeat_idx, bin_idx, n, drop_mean, p_safe, p_loss, p_collapse FROM budget_stats",
        "SELECT series, bin_idx, n, safe_budget, collapse_budget, verdict, verdict_text FROM transition_summary",
        "SELECT run_id, status, n, n_off, effective_p50 FROM run_evidence",
    )
    with closing(connect_for_reading(group / "kv_transition.sqlite")) as conn:
        return [sorted(conn.execute(query), key=repr) for query in queries]


def _alone(settings: Settings, folder: Path) -> str:
    config = settings.model_dump(mode="json")
    config["output"]["runs_dir"] = str(folder / "alone")
    config["engine"]["api_key_env"] = "CLUSTER_API_KEY"
    path = folder / "alone.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def _gone(marker: str) -> None:
    until = time.monotonic() + 20
    while alive(marker) and time.monotonic() < until:
        time.sleep(0.2)
    assert alive(marker) == []


def test_ctrl_c_stops_every_shard_and_the_same_command_goes_on(tmp_path: Path, cluster: Any) -> None:
    settings = launching(tmp_path, command=f"{SERVER} {MARKER}", n=40)
    for _ in range(2):
        cluster.add_node(num_cpus=1, resources={"place": 1}, node_ip_address="127.0.0.1")
    config = _config(settings, tmp_path, cluster.address)
    process = kvt(config)
    assert process.stderr is not None
    for line in process.stderr:
        if re.search("server ready", line):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, (out, err)
    _gone(MARKER)
    again = kvt(config)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, (out, err)
    assert len(_answers(_shards(settings))) == 160


def test_a_group_that_finds_no_place_is_refused(tmp_path: Path, cluster: Any) -> None:
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    process = kvt(_config(launching(tmp_path), tmp_path, cluster.address, wait_s=3))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "no node of the cluster had room for a shard (place 1)" in err
    assert "Traceback" not in err


def test_what_a_node_cannot_do_is_said_in_words(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.write_text("in the way")
    process = kvt(_config(launching(tmp_path), tmp_path, "local", resources={"num_cpus": 1}, shards=1))
    _, err = process.communicate(timeout=200)
    assert process.returncode == 5
    assert "1 shard on a cluster" in err
    assert re.search(rf"shard 1-of-1 was lost 6 times in a row: on its node: .*{scratch}", err), err


def test_one_machine_alone_is_a_cluster_too(tmp_path: Path) -> None:
    settings = launching(tmp_path)
    process = kvt(_config(settings, tmp_path, "local", resources={"num_cpus": 1}, shards=2))
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, (out, err)
    assert len(_answers(_shards(settings))) == 24


def test_kill_9_here_leaves_nothing_there_and_the_same_command_goes_on(tmp_path: Path) -> None:
    settings = launching(tmp_path, command=f"{SERVER} {MARKER}", n=40)
    config = _config(settings, tmp_path, "local", resources={"num_cpus": 1}, shards=2, pull_s=1)
    process = kvt(config)
    _wait(settings, 10, process)
    process.kill()
    process.communicate()
    _gone(MARKER)
    _gone(str(tmp_path / "scratch"))
    again = kvt(config)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, (out, err)
    assert len(_answers(_shards(settings))) == 160
