"""The templates for those without Ray: a valid Kubernetes Job, and a Slurm array that sends every request once."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

KILLED = """#!{python}
# A kvt whose sweep is killed: what it committed lies in the log beside the database.
import json, os, sqlite3, sys
from pathlib import Path

(runs,) = [word.partition("=")[2] for word in sys.argv if word.startswith("output.runs_dir=")]
if sys.argv[1] == "resolve":
    print(json.dumps({{"db": f"{{runs}}/g/kv_transition.sqlite"}}))
    sys.exit()
conn = sqlite3.connect(Path(runs, "g/shards/1-of-1.sqlite"), isolation_level=None)
conn.execute("PRAGMA journal_mode=WAL")
conn.execute("CREATE TABLE IF NOT EXISTS facts (said BLOB)")
conn.execute("INSERT INTO facts VALUES (zeroblob(9000))")
sys.stdout.flush()
os._exit(130)
"""
CLUSTER = Path(__file__).resolve().parents[2] / "scripts/cluster"


@pytest.mark.cluster
def test_the_kubernetes_job_is_valid_by_the_published_schema() -> None:
    import kubernetes_validate

    job = yaml.safe_load((CLUSTER / "kubernetes_job.yaml").read_text())
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    completions = job["spec"]["completions"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "KVT_SHARDS", "value": str(completions)} in container["env"]
    assert job["spec"]["completionMode"] == "Indexed"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "this is no array"),
        ({"ID": "3", "COUNT": "2", "MAX": "7"}, "the array has gaps"),
    ],
)
def test_the_slurm_script_refuses_what_is_no_whole_array(variables: dict[str, str], words: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    env |= {f"SLURM_ARRAY_TASK_{name}": value for name, value in variables.items()}
    command = ["bash", str(CLUSTER / "slurm_array.sh"), "experiment.yaml"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert words in ended.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_kubernetes_command_is_a_shell_script() -> None:
    job = yaml.safe_load((CLUSTER / "kubernetes_job.yaml").read_text())
    script = job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def run_template(template: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a template's script here as the only shard, its directories below `folder`, with KILLED as kvt."""
    kvt = folder / "bin/kvt"
    if not kvt.exists():
        for name in ("bin", "scratch"):
            (folder / name).mkdir()
        kvt.write_text(KILLED.format(python=sys.executable))
        kvt.chmod(0o755)
    shard = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MAX": "1", "KVT_SHARDS": "1"}
    places = {"KVT_RUNS": f"{folder}/runs", "KVT_SCRATCH": f"{folder}/scratch", "JOB_COMPLETION_INDEX": "0"}
    script = (CLUSTER / template).read_text()
    if template.endswith(".yaml"):
        script = yaml.safe_load(script)["spec"]["template"]["spec"]["containers"][0]["args"][0]
        for place in ("/runs", "/scratch"):
            script = script.replace(f"={place}", f"={folder}{place}")
        shutil.rmtree(folder / "scratch")  # a pod's own
    command = ["bash", "-c", script, "template", "experiment.yaml"]
    env = {**os.environ, **shard, **places, "PATH": f"{kvt.parent}:{os.environ['PATH']}"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("template", ["slurm_array.sh", "kubernetes_job.yaml"])
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_shard_that_was_killed_comes_back_whole_beside_a_log_that_was_left(template: str, tmp_path: Path) -> None:
    assert run_template(template, tmp_path).returncode == 130
    left = [f"{tmp_path}/bin/kvt", "sweep", f"output.runs_dir={tmp_path}/runs"]
    assert subprocess.run(left, check=False).returncode == 130  # a row in the log of the group's folder
    assert run_template(template, tmp_path).returncode == 130
    db = tmp_path / "runs/g/shards/1-of-1.sqlite"
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert conn.execute("SELECT count(*) FROM facts").fetchone() == (3,)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_what_cannot_be_copied_to_the_groups_folder_stays_on_the_node_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs/g/shards/.1-of-1.sqlite.part/in_the_way").mkdir(parents=True)
    (tmp_path / "runs/g/shards/.1-of-1.sqlite.part/1-of-1.sqlite").mkdir()
    ended = run_template("slurm_array.sh", tmp_path)
    assert ended.returncode == 3
    (kept,) = (tmp_path / "scratch").glob("kvt-1-of-1-*/runs/g/shards/1-of-1.sqlite")
    assert f"what was answered is in {kept.parent}" in ended.stderr
