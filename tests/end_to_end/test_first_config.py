"""`kvt init`: from a server's URL to a config that is valid, and on to a verdict."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from kvt_async.contract.load import load_settings
from kvt_async.first_config import ENGINES, FilledBlanks, config_text
from kvt_async.validate import validate
from tests.end_to_end.conftest import Kvt, ok, overrides


@pytest.mark.parametrize("engine", ENGINES)
def test_the_file_is_valid_for_every_way_of_applying_a_budget(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "own server.yaml"
    answers = FilledBlanks("http://127.0.0.1:1/v1", 'a "model": {x}', "needles", "approx:chars/4", engine)
    path.write_text(config_text(answers, path), encoding="utf-8")
    settings = load_settings(path, environ={})
    assert (settings.model.name, settings.experiment.exp_group_id) == ('a "model": {x}', "own_server")
    assert settings.engine.base_url == "http://127.0.0.1:1/v1"
    facts = validate(settings)
    assert facts["levels"] >= 3
    assert "cannot_judge" not in facts


@pytest.mark.parametrize("data", ["needles", "ruler", "vt", "multikey", "mine.jsonl"])
def test_the_file_is_valid_for_every_kind_of_data(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text('{"question": "q", "context": "c", "answers": "a"}\n', encoding="utf-8")
    path = Path("my.yaml")
    path.write_text(
        config_text(FilledBlanks("http://h/v1", "m", data, "approx:chars/4", "kvt"), path), encoding="utf-8"
    )
    validate(load_settings(path, environ={}))


def test_a_server_is_swept_to_a_verdict_by_what_init_wrote_and_printed(kvt: Kvt, server_url: str) -> None:
    printed = ok(kvt("init", "--base-url", server_url, "--apply", "kvt"))
    assert "--model reference is taken" in printed
    commands = [line.split("#")[0].split()[1:] for line in printed.splitlines() if line.startswith("  kvt ")]
    assert [command[0] for command in commands] == ["validate", "sweep", "all"]
    small = overrides(
        "dataset.params.contexts=40", "binning.n_bins=1", "binning.n_per_bin=24", "analysis.resamples=500"
    )
    validated, _, verdict = [ok(kvt(*command, *small)) for command in commands]
    assert "my.yaml is valid" in validated
    assert "verified on every level" in verdict
    assert "broken" in verdict or "safe" in verdict


def test_a_server_that_kvt_starts_needs_no_url_and_has_the_paths_of_its_recipe(kvt: Kvt, tmp_path: Path) -> None:
    ok(kvt("init", "--model", "m", "--apply", "OpenVINO"))
    assert load_settings(tmp_path / "my.yaml", environ={}).engine.base_url == "http://127.0.0.1:0/v3"


def test_on_a_terminal_what_no_option_says_is_asked(tmp_path: Path, server_url: str) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"vlm\nkvt\nreference\nvt\n\n")
    command = [sys.executable, "-m", "kvt_async", "init", "new.yaml", "--base-url", server_url]
    done = subprocess.run(command, cwd=tmp_path, stdin=theirs, capture_output=True, text=True, timeout=60, check=False)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "no way of applying a budget is called 'vlm'" in done.stdout  # and it is asked again
    assert f"{server_url} serves reference" in done.stdout
    assert "task: vt," in (tmp_path / "new.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("there.yaml",), "the file is there already, and is kept"),
        (("my.txt",), "a config is a .yaml file"),
        (("--base-url", "ftp://x"), "is no URL of a server"),
        (("--base-url", "http://user:pass@h/v1"), "may be secret"),
        (("--model", "m", "--data", "nedles"), "neither a task that is made here nor a .jsonl file"),
        (("--model", "m", "--data", "no.jsonl"), "there is no such file"),
    ],
)
def test_what_cannot_be_written_is_refused_in_words_and_nothing_is(
    kvt: Kvt, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    (tmp_path / "there.yaml").write_text("mine", encoding="utf-8")
    done = kvt("init", *options)
    assert done.returncode == 2
    assert why in done.stderr
    assert "pass@" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text(encoding="utf-8") == "mine"
