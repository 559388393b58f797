"""Which room may import which: one table, and every import followed, those inside functions too.

Below the command line the two packages share kvt_async.contract and one module of metrics; heavy libraries stay on
their side.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = "kvt_async.contract"
EVERYBODYS = {SHARED, f"{SHARED}.formulas"}
PACKAGES = ("kvt_async", "analyzer", "viewer")

# A room is a folder or a top-level module; a module belongs to the longest name that fits it. Each row: a room, and the
# rooms that it imports. They stand above the row, so the table reads bottom-up and no arrow can run back up. A name
# without its package is of the package that heads the block; the contract and its formulas are everybody's.
ROOMS = """
kvt_async:
contract
contract.formulas
contract.shards
contract.command_line  contract.shards

analyzer:
parallel
stats
metrics                parallel
read                   contract.command_line contract.shards stats
store                  read
scoring                contract.shards parallel metrics read store
results                parallel read store
stage_answers
summarise              contract.shards parallel stats read store scoring results
charts                 parallel read store results
report                 read store results charts
verbs                  metrics stats read store results report stage_answers
bench.read             read store summarise
bench.quality          contract.shards stats read store scoring results stage_answers charts summarise bench.read
bench.figures          bench.read
bench.report           read store results charts report bench.read bench.quality bench.figures
bench.exports          bench.figures bench.report
bench                  read store stage_answers bench.read bench.quality bench.figures bench.report bench.exports
frames                 stats metrics read scoring results charts bench.read bench.figures bench.exports bench
api                    contract.command_line read results frames
papers                 contract.command_line read results charts report stage_answers bench.read bench.figures \
                       bench.report bench.exports bench
verify                 contract.shards parallel read store scoring results stage_answers summarise bench.read \
                       bench.quality bench
stages                 read store scoring results stage_answers summarise charts report verbs bench verify
export_command         contract.command_line read stage_answers verbs stages
cli                    contract.command_line stage_answers papers verify stages export_command
__main__               cli

kvt_async:
plugins
clock
records
bug_reports            clock
engine.transport       records
engine.reply           records engine.transport
engine.request         records
engine.send            clock records bug_reports engine.transport engine.reply engine.request
data                   analyzer.metrics records
store                  contract.shards clock records bug_reports
ways                   clock records engine.request engine.send data
session                contract.shards clock records engine.request engine.send store ways
senders                contract.command_line records session store
merge                  contract.shards clock store session
sweep                  contract.shards clock records engine.transport engine.request engine.send data store ways \
                       session senders merge
bench                  contract.command_line clock records engine.transport engine.request engine.send data store ways \
                       session senders
cluster                contract.shards clock data session store merge sweep ways
serve                  data
validate               data ways sweep
status                 contract.shards records store session senders sweep bench
upgrade                contract.command_line clock session store
imports                clock records data session store
import_command         contract.command_line records ways imports
first_config           data
init_command           session bench first_config

viewer:
groups                 contract.command_line contract.shards analyzer.read analyzer.results kvt_async.status
answers                groups analyzer.read analyzer.results analyzer.verbs
pages                  groups answers analyzer.bench analyzer.bench.read analyzer.bench.report analyzer.read \
                       analyzer.report analyzer.results kvt_async.serve
cli                    pages

kvt_async:
demo                   contract.command_line analyzer.stages records sweep status
planned_tasks          contract.command_line analyzer.stages data
sending_commands       contract.command_line contract.shards sweep merge cluster
cli                    contract.command_line analyzer.cli sweep bench serve validate status upgrade demo planned_tasks \
                       sending_commands import_command init_command viewer.cli
__main__               cli
"""


@cache
def rooms() -> dict[str, frozenset[str]]:
    """Each room of both packages and what it may import, itself included; bottom-up."""
    table: dict[str, frozenset[str]] = {}
    package = ""
    for row in ROOMS.replace("\\\n", "").split("\n"):
        room, *below = row.split() or [""]
        if room.endswith(":"):
            package = room.removesuffix(":")
        elif room:
            homes = {"contract": "kvt_async.", **dict.fromkeys(PACKAGES, "")}
            allowed = {homes.get(name.split(".")[0], f"{package}.") + name for name in [*below, room]}
            table[f"{package}.{room}"] = frozenset(allowed | (EVERYBODYS & table.keys()))
    return table


def room_of(module: str) -> str:
    """The room that a module belongs to; a module of no room is its own."""
    parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((name for name in names if name in rooms()), module)


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
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, package
    return paths


def module_name(path: Path) -> str:
    """The dotted name under which a file of the repository is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def arrows() -> list[tuple[str, str]]:
    """(importing module, imported module) for every import of ours in either package."""
    own = {module_name(path): path for package in PACKAGES for path in files(package)}
    pairs = {
        # `from room import module` names both; the module alone is the arrow
        (name, target)
        for name, path in own.items()
        for names in [imported(path) & own.keys()]
        for target in names
        if target != name and not any(other.startswith(f"{target}.") for other in names)
    }
    return sorted(pairs)


DOORS = {"analyzer": "analyzer.api"}  # what a package's own name gives on use: the module above all that it needs


def arrows_outside_the_table() -> list[str]:
    """Every import that its room's row does not allow: `importing module -> imported module`."""
    return [
        f"{name} -> {target}"
        for name, target in arrows()
        if room_of(target) not in rooms().get(room_of(name), ()) and DOORS.get(name) != target
    ]


def test_each_room_may_import_only_rooms_that_stand_above_its_row() -> None:
    above: set[str] = set()
    for room, allowed in rooms().items():
        assert allowed - {room} <= above, f"{room}: {sorted(allowed - above - {room})}"
        above.add(room)


def test_every_module_belongs_to_a_room_and_a_folder_of_rooms_holds_none() -> None:
    names = {module_name(path): path for package in PACKAGES for path in files(package)}
    folders = {room.rsplit(".", n)[0] for room in rooms() for n in range(1, room.count(".") + 1)}
    for name, path in names.items():
        assert room_of(name) in rooms() or name in folders, name
        assert name not in folders - rooms().keys() or name in DOORS or not imported(path), name


def test_every_import_runs_to_a_room_that_the_table_allows() -> None:
    assert not arrows_outside_the_table()


def test_a_row_names_no_room_that_its_own_does_not_import() -> None:
    """So the table can be read as the plan of the house."""
    imports = {(room_of(name), room_of(target)) for name, target in arrows()}
    idle = [(room, below) for room, allowed in rooms().items() for below in allowed - {room} - EVERYBODYS]
    assert [pair for pair in idle if pair not in imports] == []


def test_the_analyzer_imports_only_the_contract_from_the_runner() -> None:
    for path in files("analyzer"):
        wrong = {name for name in imported(path) if name.startswith("kvt_async.") and not name.startswith(SHARED)}
        assert not wrong, f"{path}: {wrong}"


@pytest.mark.parametrize("library", ["aiohttp", "asyncio", "aiosqlite", "tenacity", "uvloop"])
def test_no_analyzer_file_names_a_library_of_the_network(library: str) -> None:
    for path in files("analyzer"):
        assert library not in {name.split(".")[0] for name in imported(path)}, path


@pytest.mark.parametrize("library", ["polars", "altair", "vl_convert", "scipy"])
def test_no_runner_file_names_a_library_of_the_analysis(library: str) -> None:
    for path in files("kvt_async"):
        assert library not in {name.split(".")[0] for name in imported(path)}, path


def test_below_the_command_line_the_runner_imports_one_module_of_the_analyzer_which_loads_no_polars() -> None:
    above = {"cli.py", "demo.py", "planned_tasks.py"}  # commands
    for path in files("kvt_async"):
        wrong = {name for name in imported(path) if name.startswith("analyzer")}
        names = [
            "scorer",
            "has_form",
            "expected_calls",
            "accepted_calls",
            "needs_meta",
            "as_answer",
            "reads_golds",
            "meta_fault",
        ]
        single = {"analyzer.metrics.single", *(f"analyzer.metrics.single.{name}" for name in names)}
        assert path.name in above or wrong <= single, f"{path}: {wrong}"
    assert not loaded_after("import analyzer.metrics.single as s; s.scorer('rouge')") & {"polars", "numpy", "altair"}


def test_the_contract_imports_neither_package() -> None:
    for path in files("kvt_async/contract"):
        wrong = {n for n in imported(path) if n.startswith(("kvt_async.", "analyzer")) and not n.startswith(SHARED)}
        assert not wrong, f"{path}: {wrong}"


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_running_the_analysis_loads_no_network_library() -> None:
    modules = loaded_after(
        "import analyzer.scoring.score, analyzer.summarise.analyze, analyzer.verbs.check, analyzer.metrics.qa"
    )
    assert "polars" in modules
    assert not modules & {"aiohttp", "aiosqlite", "uvloop", "altair"}


def test_the_policy_of_retries_loads_no_transport() -> None:
    modules = loaded_after("import kvt_async.engine.send.policy")
    assert "tenacity" in modules
    assert "aiohttp" not in modules


def test_the_contract_loads_neither_polars_nor_aiohttp() -> None:
    modules = loaded_after("import kvt_async.contract.schema, kvt_async.contract.load")
    assert not modules & {"aiohttp", "polars", "numpy", "altair"}
