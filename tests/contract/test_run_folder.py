"""A run's folder stands in for a config: what it says of itself is data, and nothing leads out of it."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from analyzer import stages
from kvt_async.cli import app
from kvt_async.contract.command_line.run_folder import stored_settings
from kvt_async.contract.errors import ConfigError, GuardError, KvtError
from kvt_async.contract.load import load_settings
from tests.analyzer.synthetic import make_db

CONFIG = """
experiment: {exp_group_id: synthetic}
analysis: {charts: false, resamples: 200}
check: [{name: none failed, kind: no_failures}]
"""
READING = ("status", "show", "score", "analyze", "report", "all", "verify", "check", "plan", "resolve", "export")
RECORDER = """
import json, sys
from typer.testing import CliRunner
from kvt_async.cli import app
events = ("open", "os.listdir", "os.scandir", "sqlite3.connect", "subprocess.Popen", "os.posix_spawn", "os.exec",
          "os.system", "socket.connect")
opened, errors = [], []
sys.addaudithook(lambda event, args: opened.append(repr(args)) if event in events else None)
for words in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, words)
    if result.exit_code and words[0] != "verify":
        errors.append(f"{words[0]}: {result.exception}")
print(json.dumps([opened, errors]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "synthetic"
    folder.mkdir()
    db = make_db(folder / "kv_transition.sqlite", n_bins=2, n_per_bin=6)
    config(db, CONFIG)
    stages.every_stage(stored_settings(folder))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy under another name, seen from a folder that holds nothing else."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, tmp_path / "unzipped"))


def config(db: Path, text: str) -> None:
    with closing(sqlite3.connect(db)) as conn:
        conn.execute("DROP TRIGGER IF EXISTS sessions_no_update")
        conn.execute("UPDATE sessions SET config_yaml = ?", (text,))
        conn.commit()


def kvt(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def extra(command: str) -> tuple[str, ...]:
    return {"show": ("--sample", "2"), "export": ("out.csv",)}.get(command, ())


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("place", [".", "kv_transition.sqlite"])
def test_reading_commands_take_a_folder_or_a_database(folder: Path, command: str, place: str) -> None:
    result = kvt(command, folder / place, *extra(command))
    # Synthetic hashes are invented, which verify tells.
    assert result.exit_code == (1 if command == "verify" else 0), (result.output, result.exception)


def test_what_is_written_lands_beside_the_database(folder: Path, tmp_path: Path) -> None:
    (folder / "report.md").unlink()
    assert kvt("all", folder).exit_code == 0
    assert (folder / "report.md").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"unzipped"}


def test_quiet_leaves_the_verdict(folder: Path) -> None:
    loud, quiet = kvt("all", folder).output, kvt("all", folder, "-q").output
    assert "analyzed" in loud
    assert "analyzed" not in quiet
    assert quiet.strip()
    assert quiet.strip() in loud


def test_the_users_own_overrides_hold(folder: Path) -> None:
    assert stored_settings(folder, ["analysis.margin=0.02"]).analysis.margin == 0.02
    with pytest.raises(ConfigError, match=r"db\.path=elsewhere has no meaning"):
        stored_settings(folder, ["db.path=elsewhere"])


def test_a_database_of_several_groups_is_read_by_the_newest_session_or_by_the_group_asked_for(folder: Path) -> None:
    make_db(folder / "kv_transition.sqlite", exp_group_id="later", n_bins=2, n_per_bin=6)
    assert stored_settings(folder).experiment.exp_group_id == "later"
    chosen = stored_settings(folder, ["experiment.exp_group_id=synthetic"])
    assert chosen.experiment.exp_group_id == "synthetic"
    with pytest.raises(KvtError, match="holds no group 'none'"):
        stored_settings(folder, ["experiment.exp_group_id=none"])


def test_the_stored_config_is_printed_and_is_a_config(folder: Path, tmp_path: Path) -> None:
    result = kvt("resolve", folder, "--print-config")
    again = tmp_path / "again.yaml"
    again.write_text(result.output, encoding="utf-8")
    assert load_settings(again, environ={}).analysis.resamples == 200


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("status", "my.yaml"), "Did you mean -c my.yaml?"),
        (("all", "nowhere"), "there is no folder and no database nowhere"),
        (("verify", "."), "this folder holds no run"),
        (("show", ".", "ex-000001", "more"), "too many words: more"),
        (("status", ".", "-c", "demo"), "both a config and . are given"),
    ],
)
def test_what_is_no_run_is_named(folder: Path, words: tuple[str, ...], says: str) -> None:
    result = kvt(*words)
    assert isinstance(result.exception, KvtError)
    assert says in str(result.exception)


def test_no_variable_is_resolved_and_nothing_of_the_environment_goes_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "a secret")
    monkeypatch.setenv("KVT__analysis__margin", "0.5")
    (folder.parent / ".env").write_text("KVT__analysis__alpha=0.4\n", encoding="utf-8")
    config(folder / "kv_transition.sqlite", CONFIG + "model: {name: '${API_TOKEN}'}\n")
    settings = stored_settings(folder)
    assert (settings.model.name, settings.analysis.margin, settings.analysis.alpha) == ("${API_TOKEN}", 0.05, 0.05)


def test_no_path_that_a_config_names_is_opened(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}", encoding="utf-8")
    hostile = f"""
experiment: {{exp_group_id: outside}}
dataset: {{name: jsonl, task: own, path: {outside}/config.json}}
tokenizer: {{name: {outside}/config.json}}
model: {{config: {outside}/config.json}}
output: {{runs_dir: {outside}, data_dir: {outside}}}
db: {{path: {outside}/db.sqlite}}
analysis: {{charts: false, resamples: 200, serving: {{context_tokens: 100, batch: 1}}}}
check: [{{name: none failed, kind: no_failures}}]
kv:
  apply: {{via: launch, command: "touch {outside}/launched", health_url: "http://127.0.0.1:1/v1"}}
  budgets: [1.0, 0.5]
"""
    config(folder / "kv_transition.sqlite", hostile)
    words = [[command, str(folder), *extra(command)] for command in READING]
    done = subprocess.run(
        [sys.executable, "-c", RECORDER, json.dumps(words)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    opened, errors = json.loads(done.stdout)
    assert errors == []
    assert any("kv_transition.sqlite" in path for path in opened)
    assert [path for path in opened if str(outside) in path or "touch" in path or "../outside" in path] == []
    assert [path.name for path in outside.iterdir()] == ["config.json"]


def test_a_group_that_is_named_like_a_path_is_refused(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "kv_transition.sqlite")) as conn:
        for table in ("experiments", "sessions"):
            conn.execute(f"DROP TRIGGER IF EXISTS {table}_no_update")
            conn.execute(f"UPDATE {table} SET exp_group_id = '../../outside'")
        conn.commit()
    with pytest.raises(ConfigError, match="exp_group_id"):
        stored_settings(folder)


@pytest.mark.parametrize("name", ["report.md", "plots", ".made.json", "kv_transition.sqlite", "plots/accuracy.svg"])
def test_a_link_that_leads_out_of_the_folder_stops_everything(folder: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "precious"
    target.write_text("mine", encoding="utf-8")
    link = folder / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    with pytest.raises(GuardError, match=r"leads out of this folder"):
        stored_settings(folder)
    assert target.read_text(encoding="utf-8") == "mine"


def test_a_record_that_names_files_elsewhere_is_not_believed(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine", encoding="utf-8")
    record = {"report": {"from": "x", "rows": "y", "files": {"../precious": "0" * 64}}}
    (folder / ".made.json").write_text(json.dumps(record), encoding="utf-8")
    assert "precious" not in kvt("verify", folder).output
    assert kvt("report", folder).exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "[" * 20_000,
        "!!python/object/apply:os.system ['touch owned']",
        "just words",
        "experiment: {exp_group_id: 3\n",
        "unknown: {key: 1}",
        "analysis: {margin: much}",
        "x: " + "y" * (1 << 20),
    ],
    ids=["references", "deep", "python", "words", "cut", "unknown", "type", "long"],
)
def test_a_stored_config_that_kvt_did_not_write_is_refused_in_words(folder: Path, tmp_path: Path, text: str) -> None:
    config(folder / "kv_transition.sqlite", text)
    with pytest.raises(ConfigError):
        stored_settings(folder)
    assert not (tmp_path / "owned").exists()


def test_a_folder_where_nothing_can_be_written_can_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_writable(path: object, mode: int, **_: object) -> bool:
        return mode != os.W_OK

    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr("kvt_async.contract.schema.os.access", not_writable)
    assert kvt("show", folder, "ex-000001").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_folder_is_no_config_and_a_shipped_name_wins_over_a_folder_of_that_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    assert kvt("resolve", "-c", "demo").exit_code == 0
    assert "leave out -c" in str(kvt("resolve", "-c", "unzipped").exception)
