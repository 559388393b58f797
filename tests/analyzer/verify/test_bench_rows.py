"""`kvt verify` of a bench: every stored figure of a load, a stage or a zone is made again from the marks."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from analyzer.bench import stored_figures
from analyzer.bench.bench_analysis import bench_stages
from analyzer.verify.findings import VerifyAnswer, verified
from kvt_async.contract.load import load_settings
from tests.analyzer.bench_rows import GROUP, Load, steady, write_bench

DB = "kv_transition.sqlite"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    slo = {"ttft_p99_ms": 500.0}
    loads = [Load(steady(30), repeat=repeat, seed=repeat, slo=slo) for repeat in range(2)]
    loads.append(Load(steady(30, 50.0, ttft_ms=120.0), label="rate 20/s", rate=20.0, slo=slo))
    write_bench(folder / DB, loads).close()
    own = (f"experiment.exp_group_id={GROUP}", f"db.path={folder / DB}", "analysis.charts=false")
    bench_stages(load_settings(None, own, environ={}))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def edit(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / DB)) as conn:
        assert conn.execute(statement).rowcount != 0, statement
        conn.commit()


def named(found: VerifyAnswer) -> set[tuple[str, str]]:
    parts = [found.files, *(checked.findings for checked in found.generations)]
    return {(difference.table, difference.column) for part in parts for difference in part.differences}


def test_what_a_bench_stored_is_equal_to_the_last_row(folder: Path) -> None:
    found = verified(folder / DB)
    assert found.generations[0].findings.n_differences == found.files.n_differences == 0, found.lines
    checked = found.generations[0].findings.checked
    assert (checked["bench_points"], checked["bench_stats"] > 10) == (2, True)
    assert found.files.checked["bench_report"] >= 2


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE bench_points SET attainment = 0.5", ("bench_points", "attainment")),
        (
            "UPDATE bench_points SET figures_json = json_set(figures_json, '$.requests_per_s.value', 99)",
            ("bench_points", "figures_json"),
        ),
        ("UPDATE bench_stats SET p99_s = 0.001 WHERE metric = 'ttft'", ("bench_stats", "p99_s")),
        ("UPDATE bench_stats SET fingerprint = 'other' WHERE metric = 'ttft'", ("bench_stats", "fingerprint")),
        ("DELETE FROM bench_stats WHERE metric = 'ttft'", ("bench_stats", "")),
    ],
)
def test_an_edited_figure_is_named(folder: Path, statement: str, where: tuple[str, str]) -> None:
    edit(folder, statement)
    found = verified(folder / DB)
    assert found.exit_code == 1
    assert where in named(found)


def test_an_edited_page_is_named(folder: Path) -> None:
    page = folder / "bench_report.md"
    page.write_text(page.read_text(encoding="utf-8") + "fast", encoding="utf-8")
    assert named(verified(folder / DB)) == {("files", "sha256")}


def test_rows_of_another_version_and_rows_without_a_record_are_not_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stored_figures, "BENCH_VERSION", "99")
        assert any("made by bench analyzer" in line for line in verified(folder / DB).lines)
    edit(folder, "DELETE FROM analysis_state")
    found = verified(folder / DB)
    assert found.generations[0].findings.n_differences == 0
    assert found.generations[0].findings.not_checkable
