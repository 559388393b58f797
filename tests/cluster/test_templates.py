"""The templates for those without Ray: a valid Kubernetes Job, and a Slurm array that sends every request once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

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
