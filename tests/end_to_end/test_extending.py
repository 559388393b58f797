"""The recipes of docs/EXTENDING.md, run as they stand there."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvt_async.cli import app
from kvt_async.contract import plugin_files
from kvt_async.contract.errors import KvtError
from kvt_async.demo import reference_server
from tests import recipes
from tests.end_to_end.conftest import Kvt, kvt_in, ok
from tests.servers.openai_server import on_loopback
from tests.ways.test_added_way import HeaderServer
from tests.worlds import query, write_examples

PLUGINS = ("contains_all.py", "phone_book.py", "strided.py")
CONFIG = ("-c", "phone_book.yaml", "--override", "analysis.resamples=200", "--override", "analysis.charts=false")
RUN = "runs/phone_book"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugins of the page, whose group was swept and analysed."""
    folder = tmp_path_factory.mktemp("plugins")
    recipes.write(folder, *PLUGINS, "phone_book.yaml")
    with reference_server("--plugin", str(folder / "strided.py")) as url:
        said = kvt_in(folder)("sweep", "-c", "phone_book.yaml", "--override", f"engine.base_url={url}")
    ok(said)
    for name in PLUGINS[:2]:
        assert f"plugin {name}: " in said.stderr
        assert digest(folder / name) in said.stderr
    with chdir(folder):
        done("all", *CONFIG)
    return folder


@pytest.fixture
def folder(swept: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, as the working directory of a process that has loaded nothing yet."""
    copied = Path(shutil.copytree(swept, tmp_path / "copy"))
    plugin_files.load([])
    with chdir(copied):
        yield copied
    plugin_files.load([])


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def done(*words: str, code: int = 0) -> str:
    """What a command said that ended with this exit code."""
    result = CliRunner().invoke(app, list(words))
    error = result.exception
    assert (error.exit_code if isinstance(error, KvtError) else result.exit_code) == code, result.output
    return f"{result.output}{error if isinstance(error, KvtError) else ''}"


def test_metric_source_and_policy_of_the_page_make_a_sweep_with_evidence(swept: Path) -> None:
    db = swept / RUN / "kv_transition.sqlite"
    assert query(db, "SELECT name, task, metric, source_revision FROM datasets") == [
        ("phone_book", "number", "contains_all", "phone_book 1")
    ]
    assert query(db, "SELECT DISTINCT status FROM run_evidence WHERE status <> 'full'") == [("verified",)]
    assert query(db, "SELECT DISTINCT kv_policy FROM runs WHERE NOT is_full") == [("strided",)]
    assert query(db, "SELECT DISTINCT metric, score IN (0, 1), count(*) FROM scores") == [("contains_all", 1, 96)]
    by_level = "SELECT kv_budget, avg(score) FROM scores JOIN requests USING (request_id) JOIN runs USING (run_id)"
    mean = dict(query(db, f"{by_level} WHERE repeat_idx = 0 GROUP BY 1"))
    assert mean[1.0] > 0.9 > 0.5 > mean[0.5]  # the model reads the page, and not what a stride leaves of it
    config = query(db, "SELECT config_yaml FROM sessions")[0][0]
    log = (db.parent / "run.log").read_text()
    for name in PLUGINS[:2]:
        assert digest(swept / name) in config
        assert digest(swept / name) in log


@pytest.mark.usefixtures("folder")
def test_the_tasks_of_the_source_are_listed() -> None:
    assert "whose telephone number it is" in done("tasks", "phone_book", "-c", "phone_book.yaml")
    assert "phone_book" in done("tasks", "-c", "phone_book.yaml")


def test_a_folder_alone_is_read_but_neither_scored_nor_vouched_for(folder: Path) -> None:
    """Nothing of a folder is run, so the metric is missing; who needs it says which file with which hash it was."""
    for words in (("report", RUN), ("show", RUN, "--sample", "1"), ("export", RUN, "out.csv")):
        done(*words, "--override", "analysis.charts=false")
    for words in (("score", RUN), ("analyze", RUN), ("verify", RUN)):
        said = done(*words, code=3)
        assert "contains_all.py" in said
        assert digest(folder / "contains_all.py") in said
    done("verify", *CONFIG)


def test_a_changed_metric_makes_its_scores_stale(folder: Path, swept: Path) -> None:
    file = folder / "contains_all.py"
    before = digest(file)
    assert "scored 0, " in done("score", *CONFIG)
    file.write_text(file.read_text().replace("and all(", "and not all("))
    refusal = done("analyze", *CONFIG, code=3)
    assert "contains_all has changed since these scores were made" in refusal
    assert before in refusal
    assert digest(file) in refusal
    assert "can't be checked" in done("verify", *CONFIG, code=3)
    assert "scored 96, " in done("score", *CONFIG)
    stale = done("report", *CONFIG, code=3)
    assert f"answers were scored by contains_all of contains_all.py (SHA-256 {digest(file)}) since" in stale
    done("all", *CONFIG)
    done("verify", *CONFIG)
    assert digest(file) in Path(RUN, "report.md").read_text()
    assert "dataset.metric_sha256" in done("compare", RUN, str(swept / RUN), code=3)


def test_stored_answers_are_scored_by_other_metrics_with_and_without_the_plugin(folder: Path) -> None:
    own = done("all", *CONFIG).splitlines()[-8:]
    plugin_files.load([])
    said = done("all", RUN, *CONFIG[2:], "--metric", "f1")
    assert "Scored by f1; the task's own metric is contains_all." in " ".join(said.split())
    done("verify", RUN)
    assert done("all", *CONFIG).splitlines()[-8:] == own


def test_a_package_gives_the_same_by_its_entry_points(tmp_path: Path) -> None:
    recipes.write(tmp_path, *PLUGINS, "pyproject.toml", "phone_book.yaml")
    kvt = installed(tmp_path)
    env = {"PYTHONPATH": str(tmp_path)}
    assert "whose telephone number it is" in ok(kvt("tasks", "phone_book", env=env))
    said = kvt("validate", "-c", "phone_book.yaml", "--override", "plugins=[]", env=env)
    ok(said)
    assert f"plugin kvt-phone-book 1.0: {tmp_path}/phone_book.py (SHA-256 {digest(tmp_path / 'phone_book.py')})" in (
        said.stderr
    )
    asks = "from kvt_async.serve.catalogue import ReferencePolicies as P; P().check('strided', {'stride': 3})"
    policies = "print(P().names())"
    done = subprocess.run(
        [sys.executable, "-c", f"{asks}; {policies}"], env=os.environ | env, capture_output=True, text=True, check=True
    )
    assert "'strided'" in done.stdout


def test_a_package_that_is_broken_or_announces_what_it_lacks_is_said(tmp_path: Path) -> None:
    recipes.write(tmp_path, *PLUGINS, "pyproject.toml")
    kvt, env = installed(tmp_path), {"PYTHONPATH": str(tmp_path)}
    (tmp_path / "phone_book.py").write_text("import json\njson.loads('{')\n")
    done = kvt("tasks", "phone_book", env=env)
    assert done.returncode == 2
    assert "the source phone_book of kvt-phone-book 1.0 can't be loaded: JSONDecodeError" in done.stderr
    assert "phone_book.py:2" in done.stderr
    (tmp_path / "phone_book.py").write_text("def phone_book(task, path, params): ...\n")
    done = kvt("tasks", "phone_book", env=env)
    assert done.returncode == 2
    assert "phone_book defines none of that name" in done.stderr
    assert "Traceback" not in done.stderr


def installed(folder: Path) -> Kvt:
    """kvt beside a package that was installed into this folder, as an installer leaves it: with its entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return kvt_in(folder)


async def test_a_program_with_a_way_of_its_own_sweeps(tmp_path: Path) -> None:
    recipes.write(tmp_path, "my_kvt.py", "header.yaml")
    write_examples(tmp_path / "examples.jsonl", 8)
    async with on_loopback(server := HeaderServer()) as url:
        overrides = (
            f"engine.base_url={url}", "dataset={name: jsonl, task: made, path: examples.jsonl}", "model.name=reference",
            "tokenizer.name=approx:chars/4", "binning={n_bins: 1, n_per_bin: 8}", "experiment.exp_group_id=g",
        )  # fmt: skip
        words = [word for each in overrides for word in ("--override", each)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "my_kvt.py", "sweep", "-c", "header.yaml", *words, cwd=tmp_path, stderr=subprocess.PIPE
        )
        _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert set(server.budgets) == {"1.0", "0.5", "0.2"}


MEASURE = """
import asyncio
import sys
from contextlib import closing
from pathlib import Path

import kvt_async
from analyzer.charts.draw import CHARTS, draw
from analyzer.charts.frames import chart_data
from analyzer.results.results import read_results
from analyzer.stages import analyze_stage, score_stage
from kvt_async.contract.schema import connect_for_reading
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.worlds import db_of, query, sweep_settings

assert kvt_async.__file__.startswith(sys.argv[1])


async def sweep():
    async with serving(Script()) as (_, url):
        settings = sweep_settings(Path(sys.argv[1]), url, "analysis.resamples=100", "analysis.charts=false", n=8)
        await run(settings, options=SweepOptions(quiet=True))
        return settings


settings = asyncio.run(sweep())
score_stage(settings)
analyze_stage(settings)
print(query(settings, "SELECT count(*), count(second_text_ns) FROM telemetry"))
print(query(settings, "SELECT count(*) FROM attempt_metrics WHERE first_gap_s >= 0"))
print(query(settings, "SELECT count(*), count(first_gap_p50_s), count(first_gap_p95_s) FROM bin_stats"))
with closing(connect_for_reading(db_of(settings))) as conn:
    results = read_results(conn, "g")
(kind,) = [kind for kind in CHARTS if kind.name == "answer_length"]
print(draw(kind, results, chart_data(results))["title"]["text"])
"""


def test_a_latency_metric_and_a_chart_of_the_page_work_in_a_copy_of_kvt(tmp_path: Path) -> None:
    skipped = shutil.ignore_patterns("__pycache__", "reference", "golden")
    for package in ("kvt_async", "analyzer", "viewer", "tests"):
        shutil.copytree(recipes.ROOT / package, tmp_path / package, ignore=skipped)
    recipes.patch(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    marks, metrics, percentiles, title = done.stdout.splitlines()
    (attempts, marked), (measured,) = map(int, re.findall(r"\d+", marks)), map(int, re.findall(r"\d+", metrics))
    assert attempts >= 32
    assert marked == measured == attempts
    rows, p50, p95 = map(int, re.findall(r"\d+", percentiles))
    assert rows == p50 == p95 > 0
    assert title == "['How long answers are']"


def test_every_block_of_the_page_is_run() -> None:
    """A block without a file behind its language would be shown and never tried."""
    page = recipes.PAGE.read_text()
    opened = re.findall(r"^```(\S.*)$", page, re.MULTILINE)
    run = {f"{kind} {name}" for kind in ("python", "yaml", "toml", "diff") for name, _ in recipes.blocks(kind)}
    assert set(opened) == run
