"""Ctrl-C before there is anything to stop: exit 130 and no stack trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_core import SchemaValidator, core_schema

from kvt_async.contract import local_faults
from kvt_async.contract.command_line.options import run_app

PRESSING = """
import os, signal, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name == os.environ["CTRL_C_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("module", ["typer", "kvt_async.contract.settings", "kvt_async.sweep.sweep"])
def test_while_a_module_loads(tmp_path: Path, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(PRESSING)
    environ = os.environ | {"PYTHONPATH": str(tmp_path), "CTRL_C_AT": module}
    command = [sys.executable, "-m", "kvt_async", "run", "-c", "demo"]
    found = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, "Traceback" in found.stderr) == (130, False), found.stderr


def test_while_pydantic_builds_a_model_which_makes_another_error_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupting:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_app(lambda: SchemaValidator(core_schema.literal_schema([Interrupting()])))
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_another_error_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_faults, "opened", {})  # an earlier test's database may explain any error

    def broken() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_app(broken)
