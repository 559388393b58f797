"""LongBench from the hub, over the wire: a hub on loopback serves the archive, or fails in the ways a hub fails."""

import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from kvt_async.contract.errors import ConfigError, ServerError
from kvt_async.data.manifest import read_head
from kvt_async.data.sources import list_tasks, open_source
from kvt_async.data.sources.longbench_archive import REPO, REVISION
from tests.data.helpers import longbench_row, longbench_zip, settings
from tests.data.hub import Hub, serving

CONTENT = f"/datasets/{REPO}/resolve/{REVISION}/data.zip"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    tasks = {"narrativeqa": [longbench_row(i) for i in range(4)], "qasper": [longbench_row(0)], "qasper_e": []}
    archive = longbench_zip(tmp_path / "published.zip", tasks)
    with serving(Hub(REPO, REVISION, {"data.zip": archive.read_bytes()})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield hub


def contents(hub: Hub) -> list[str]:
    """What was asked of the archive itself."""
    return [request for request in hub.requests if CONTENT in request and request.startswith("GET")]


def cached(tmp_path: Path) -> Path:
    return tmp_path / "data/raw/longbench" / REVISION / "data.zip"


def test_the_archive_is_fetched_once_and_its_hash_stored(hub: Hub, tmp_path: Path) -> None:
    first, second = open_source(settings(tmp_path)), open_source(settings(tmp_path))
    assert first.revision == second.revision == f"{REVISION} sha256:{sha256(hub.files['data.zip']).hexdigest()}"
    assert [row.example.question for row in first.rows()] == [f"who did it {i} ?" for i in range(4)]
    assert len(contents(hub)) == 1


def test_another_revision_is_another_archive(hub: Hub, tmp_path: Path) -> None:
    hub.revision = "b" * 40
    source = open_source(settings(tmp_path, f"dataset.revision={hub.revision}"))
    assert source.revision.startswith(f"{'b' * 40} sha256:")
    assert not cached(tmp_path).exists()


def test_a_revision_that_the_hub_does_not_have_is_named_and_nothing_is_made(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the hub has no such revision") as caught:
        open_source(settings(tmp_path, "dataset.revision=nosuch"))
    assert caught.value.where == "dataset.revision nosuch"
    assert "null for the pinned one" in caught.value.do
    assert not (tmp_path / "data").exists()


def test_a_revision_without_the_archive_says_so(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"README.md": b""}
    with pytest.raises(ConfigError, match=r"the hub has no data\.zip at this revision"):
        open_source(settings(tmp_path))


def test_an_archive_with_another_hash_than_announced_is_removed(hub: Hub, tmp_path: Path) -> None:
    hub.faults = ["other"]
    with pytest.raises(ServerError, match=r"not the data\.zip that the hub announced") as caught:
        open_source(settings(tmp_path))
    assert sha256(hub.files["data.zip"]).hexdigest() in caught.value.details[0]
    assert not cached(tmp_path).exists()
    assert len(list(open_source(settings(tmp_path)).rows())) == 4  # the next try is not misled by the first


def test_a_download_that_breaks_off_once_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    hub.faults = ["cut"]
    assert len(list(open_source(settings(tmp_path)).rows())) == 4
    assert len(contents(hub)) == 2


def test_a_download_that_keeps_breaking_off_leaves_no_archive_and_the_next_command_gets_it(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client's pause between its tries
    hub.faults = ["cut"] * 20
    with pytest.raises(ServerError, match=r"the download of data\.zip broke off") as caught:
        open_source(settings(tmp_path))
    assert "The same command tries again" in caught.value.do
    assert not cached(tmp_path).exists()
    hub.faults = []
    assert len(list(open_source(settings(tmp_path)).rows())) == 4


def test_tasks_are_listed_from_the_archives_directory_alone(hub: Hub, tmp_path: Path) -> None:
    said: list[str] = []
    assert [key for key, _ in list_tasks("longbench", settings(tmp_path), report=said.append)] == [
        "narrativeqa",
        "qasper",
    ]
    assert said == [f"from {REPO}@{REVISION}"]
    assert contents(hub)
    assert all(" bytes=" in request for request in contents(hub))
    assert not (tmp_path / "data").exists()


def kvt(tmp_path: Path, url: str, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    config = "dataset: {name: longbench, task: qasper}\nmodel: {name: reference}\nbinning: {n_bins: 1, n_per_bin: 1}\n"
    (tmp_path / "c.yaml").write_text(config)
    command = [sys.executable, "-m", "kvt_async", *args, "-c", "c.yaml"]
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_prepare_reaches_the_hub_that_the_environment_names(hub: Hub, tmp_path: Path) -> None:
    done = kvt(tmp_path, hub.url, "prepare")
    assert done.returncode == 0, done.stderr
    (manifest,) = (tmp_path / "data").rglob("manifest.json")
    assert read_head(manifest).source_revision == f"{REVISION} sha256:{sha256(hub.files['data.zip']).hexdigest()}"
