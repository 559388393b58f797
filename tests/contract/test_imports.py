"""The two packages share kvt_async.contract and nothing else; heavy libraries stay on their side."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = "kvt_async.contract"


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


def test_the_analyzer_imports_only_the_contract_from_the_runner():
    for path in files("analyzer"):
        wrong = {name for name in imported(path) if name.startswith("kvt_async.") and not name.startswith(SHARED)}
        assert not wrong, f"{path}: {wrong}"


@pytest.mark.parametrize("library", ["aiohttp", "asyncio", "aiosqlite", "tenacity", "uvloop"])
def test_no_analyzer_file_names_a_library_of_the_network(library):
    for path in files("analyzer"):
        assert library not in {name.split(".")[0] for name in imported(path)}, path


@pytest.mark.parametrize("library", ["polars", "altair", "vl_convert", "scipy"])
def test_no_runner_file_names_a_library_of_the_analysis(library):
    for path in files("kvt_async"):
        assert library not in {name.split(".")[0] for name in imported(path)}, path


def test_below_the_command_line_the_runner_imports_one_module_of_the_analyzer_which_loads_no_polars():
    above = {"cli.py", "demo.py"}
    for path in files("kvt_async"):
        wrong = {name for name in imported(path) if name.startswith("analyzer")}
        single = {"analyzer.metrics.single", "analyzer.metrics.single.scorer", "analyzer.metrics.single.has_form"}
        assert path.name in above or wrong <= single, f"{path}: {wrong}"
    assert not loaded_after("import analyzer.metrics.single as s; s.scorer('rouge')") & {"polars", "numpy", "altair"}


def test_the_contract_imports_neither_package():
    for path in files("kvt_async/contract"):
        wrong = {n for n in imported(path) if n.startswith(("kvt_async.", "analyzer")) and not n.startswith(SHARED)}
        assert not wrong or path.name == "options.py", f"{path}: {wrong}"


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_running_the_analysis_loads_no_network_library():
    modules = loaded_after(
        "import analyzer.scoring.score, analyzer.summarise.analyze, analyzer.verbs.check, analyzer.metrics.qa"
    )
    assert "polars" in modules
    assert not modules & {"aiohttp", "aiosqlite", "uvloop", "altair"}


def test_the_contract_loads_neither_polars_nor_aiohttp():
    modules = loaded_after("import kvt_async.contract.schema, kvt_async.contract.load")
    assert not modules & {"aiohttp", "polars", "numpy", "altair"}
