"""A real Slurm of this one machine runs the array: every request once, and a task that was stopped goes on."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from tests.sweep_process import config_of
from tests.ways.test_launch_reference import launching
from tests.worlds import db_of, free_port

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/cluster/slurm_array.sh"
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(name) is None for name in NEEDED),
        reason="needs root and Debian's slurm-wlm",
    ),
]
_CONF = """ClusterName=kvt
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=30
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node.log
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Its folder."""
    folder = tmp_path / "slurm"
    folder.mkdir(mode=0o755)
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(host=host, folder=folder, controller=free_port(), node=free_port()))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    daemons = []
    for command in (munged, ["slurmctld", "-D", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf)]):
        daemons.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        )
        time.sleep(0.5)
    _until(lambda: "idle" in _said("sinfo", "-h"))
    yield folder
    _said("scancel", "--user=root")
    for daemon in reversed(daemons):
        daemon.terminate()
    for daemon in daemons:
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _until(condition: "object", patience_s: float = 120) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _submit(settings: Settings, folder: Path, array: str, **variables: str) -> str:
    """The job's number."""
    names = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
    scratch = {"KVT_RUNS": str(db_of(settings).parents[1]), "KVT_SCRATCH": str(folder)}
    command = ["sbatch", "--parsable", f"--array={array}", f"--export={names}", str(SCRIPT)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = subprocess.run(
        [*command, str(config_of(settings, folder))],
        env={**os.environ, **scratch, "PATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return job.stdout.strip()


def _answered(settings: Settings) -> list[str]:
    """request_ids with a response, over the shards that are here."""
    ids: list[str] = []
    for db in (db_of(settings).parent / "shards").glob("*.sqlite"):
        with closing(connect_for_reading(db)) as conn:
            ids += [row[0] for row in conn.execute("SELECT request_id FROM responses")]
    return ids


def test_an_array_sends_every_request_once(tmp_path: Path, slurm: Path) -> None:
    settings = launching(tmp_path, n=8)
    _submit(settings, tmp_path, "1-2")
    _until(lambda: not _said("squeue", "-h"), 240)
    answered = _answered(settings)
    assert len(answered) == len(set(answered)) == 4 * 8, _logs(tmp_path)
    assert not [path for path in tmp_path.glob("kvt-*-of-*") if path.is_dir()]  # the node's own folders


def test_a_task_that_slurm_stops_is_kept_and_goes_on(tmp_path: Path, slurm: Path) -> None:
    settings = launching(tmp_path, n=60)
    job = _submit(settings, tmp_path, "1-1")
    _until(lambda: "server ready" in _logs(tmp_path))
    _said("scancel", "--signal=TERM", "--full", job)
    _until(lambda: not _said("squeue", "-h"))
    first = _answered(settings)
    _submit(settings, tmp_path, "1", KVT_SHARDS="1")
    _until(lambda: not _said("squeue", "-h"), 240)
    answered = _answered(settings)
    assert set(first) < set(answered)
    assert len(answered) == len(set(answered)) == 4 * 60, _logs(tmp_path)


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in folder.glob("kvt-*.log"))
