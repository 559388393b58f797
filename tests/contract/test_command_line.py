"""What a command line says to somebody who mistyped, who looks for a key, or who reads the help."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner, Result

from kvt_async.cli import app
from kvt_async.contract.command_line.config_comments import commented
from kvt_async.contract.command_line.help_order import config_key
from kvt_async.contract.load import dump_yaml, load_settings
from kvt_async.contract.paths import document
from kvt_async.contract.vocabulary import OUR_SOURCES

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def kvt(*words: str, columns: int = 80) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns)})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sweep", "my.yaml"), "Did you mean -c my.yaml?"),
        (("validate", "my.yaml"), "Did you mean -c my.yaml?"),
        (("sweep", "."), "this command needs a config"),
        (("sweep", "--budgets", "0.5"), "Did you mean --override kv.budgets=VALUE?"),
        (("all", "--margin", "0.1"), "Did you mean --override analysis.margin=VALUE?"),
        (("sweep", "--model", "m"), "Did you mean --override model.name=VALUE?"),
        (("sweep", "--quite"), "--quiet"),
        (("serve", "more"), "unexpected extra argument"),
    ],
)
def test_a_mistyped_line_is_answered_with_what_was_meant(words: tuple[str, ...], says: str) -> None:
    result = kvt(*words)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_an_option_that_resembles_no_key_is_answered_without_one() -> None:
    assert config_key("--bugets") == "kv.budgets"
    assert config_key("--frobnicate") is None
    assert "override" not in kvt("sweep", "--frobnicate").output


@pytest.mark.parametrize("columns", [80, 100])
def test_help_lists_every_command_under_a_heading_with_its_whole_sentence(columns: int) -> None:
    output = kvt("--help", columns=columns).output
    assert "Others:" not in output
    assert "..." not in output.partition("Start:")[2], "no sentence is cut"
    assert all(re.search(rf"^  {name} ", output, re.MULTILINE) for name in COMMANDS)
    order = [output.index(f"\n  {name} ") for name in ("validate", "sweep", "all", "verify")]
    assert order == sorted(order), "in the order of work"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_on_a_line_of_its_own(name: str) -> None:
    lines = [line.strip() for line in kvt(name, "--help", columns=200).output.splitlines()]
    examples = [line for line in lines if "Example:" in line]
    assert examples
    assert all(line.count("Example:") == 1 and line.startswith(f"Example: kvt {name}") for line in examples)


def test_a_printed_config_carries_the_comments_and_is_the_same_config() -> None:
    plain = dump_yaml(load_settings(None, ("prompt.system='two\n\nlines'",), environ={}))
    text = commented(plain)
    assert yaml.safe_load(text) == yaml.safe_load(plain)
    assert re.search(r"^  budgets: +# 1\.0 = full cache$", text, re.MULTILINE)
    assert text.count("#") > 50


def test_a_sweep_without_full_cache_is_said_to_be_one_that_nothing_can_be_judged_by() -> None:
    result = kvt("validate", "-c", "demo", "--override", "kv.budgets=[0.5]", columns=200)
    assert result.exit_code == 0
    assert "nothing in it can be judged" in result.output
    assert result.output.count("full cache there is nothing to compare with") == 1
    assert "no level is full cache" not in result.output, "one note says it"
    assert "[" not in kvt("validate", "-c", "demo").output, "lists are for people"


def test_tasks_without_a_name_lists_the_datasets() -> None:
    output = kvt("tasks").output
    assert all(f"\n{name} " in f"\n{output}" for name in OUR_SOURCES)


def test_what_messages_name_exists_here() -> None:
    assert Path(document("KV_BUDGETS.md")).is_file()


SOURCES = [
    f for package in ("kvt_async", "analyzer", "viewer") for f in sorted((ROOT / package).rglob("*.py"))
]  # fmt: skip


def test_no_message_names_a_file_that_only_a_checkout_has() -> None:
    named = re.compile(r"""(?:do|details)=.*(?:configs/|docs/)""")
    assert [f"{f}: {line}" for f in SOURCES for line in f.read_text("utf-8").splitlines() if named.search(line)] == []


def benchmarks(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/benchmarks.py"), "--folder", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})


def test_benchmarks_end_and_name_what_failed_last(tmp_path: Path) -> None:
    (tmp_path / "a_broken.py").write_text("raise SystemExit(3)", encoding="utf-8")
    (tmp_path / "b_endless.py").write_text("import threading; threading.Event().wait()", encoding="utf-8")
    (tmp_path / "c_good.py").write_text("print('1.00')", encoding="utf-8")
    (tmp_path / "_server.py").write_text("raise SystemExit(4)", encoding="utf-8")
    done = benchmarks(tmp_path, "--limit-s", "1")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == ["FAILED a_broken.py: exit 3", "FAILED b_endless.py: not done after 1 s"]
    assert "1.00" in done.stdout
    assert benchmarks(tmp_path, "--only", "good").stdout.splitlines()[-1] == "1 benchmarks ran"


def test_a_python_without_docstrings_is_refused_in_words() -> None:
    ended = subprocess.run(
        [sys.executable, "-OO", "-m", "kvt_async", "tasks"], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, "without -OO" in ended.stderr, "Traceback" in ended.stderr) == (2, True, False)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sw", ["sweep"]),
        ("bench qu", ["quick"]),
        ("sweep --retry", ["--retry-failed"]),
        ("sweep -c deco", ["decode", "decoy.yaml"]),
        ("sweep -c ./deco", ["./decoy.yaml"]),
    ],
)
def test_bash_is_offered_commands_options_and_configs(
    typed: str, offered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `complete -F`, as the line that `kvt --show-completion bash` prints sets it up."""
    monkeypatch.chdir(tmp_path)
    Path("decoy.yaml").touch()
    words = ["kvt", *typed.split()]
    environment = {"_KVT_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    assert CliRunner().invoke(app, env=environment, prog_name="kvt").output.split() == offered
