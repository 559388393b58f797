"""A config on its way to other machines: it holds all that was set here, and of secrets only the names."""

import importlib.util
from pathlib import Path

import pytest

from kvt_async.cluster.ray_cluster import connected
from kvt_async.cluster.shard_tasks import exit_code_over
from kvt_async.contract.cluster_settings import Cluster
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings
from kvt_async.contract.travelling_config import travelling_yaml

SECRET = "sk-that-never-travels"


def _travelled(tmp_path: Path, text: str, *overrides: str) -> str:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return travelling_yaml(load_settings(path, overrides))


def test_a_secret_travels_by_its_name_and_every_other_variable_by_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVING_TOKEN", SECRET)
    monkeypatch.setenv("SERVED", "llama")
    monkeypatch.setenv("KVT__limits__concurrency", "3")
    text = "model: {name: '${SERVED}'}\nengine: {headers: {Authorization: 'Bearer ${SERVING_TOKEN}'}}\n"
    travelled = _travelled(tmp_path, text, "decoding.max_tokens=7")
    assert SECRET not in travelled
    there = tmp_path / "there.yaml"
    there.write_text(travelled)
    environment = {"SERVING_TOKEN": "another-token-of-the-node", "SERVED": "another model"}
    settings = load_settings(there, environ=environment)
    assert settings.engine.headers["Authorization"] == "Bearer another-token-of-the-node"
    assert (settings.model.name, settings.limits.concurrency, settings.decoding.max_tokens) == ("llama", 3, 7)


def test_the_key_of_the_server_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert SECRET not in _travelled(tmp_path, "model: {name: m}\n")


def test_a_secret_that_was_written_into_the_config_does_not_travel(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a secret itself") as refused:
        _travelled(tmp_path, f"engine: {{headers: {{Authorization: 'Bearer {SECRET}'}}}}\n")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("codes", "code"), [([0, 0], 0), ([0, 4, 0], 4), ([4, 5, 3], 3), ([5, 130, 3], 130), ([1, 4], 4), ([], 0)]
)
def test_the_exit_code_over_shards_is_the_gravest(codes: list[int], code: int) -> None:
    assert exit_code_over(codes) == code


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_the_refusal_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'kvt\[ray\]'"), connected(Cluster()):
        pass
