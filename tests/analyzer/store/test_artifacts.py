"""Charts and report are made once from the same results; whatever is missing or was changed is made again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from analyzer import stages
from analyzer.store.artifacts import NAME, once
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from tests.analyzer.synthetic import make_db


class Workshop:
    """Makes two files and counts how often it had to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def once(self, *inputs: object, what: str = "charts") -> list[str]:
        return [file.name for file in once(self.folder, what, inputs, self._make).files]

    def _make(self) -> list[Path]:
        self.made += 1
        (self.folder / "plots").mkdir(exist_ok=True)
        files = [self.folder / "b.md", self.folder / "plots" / "a.svg"]
        for file in files:
            file.write_text("drawn", encoding="utf-8")
        return files


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_equal_results_are_drawn_once_and_the_files_named_in_their_order(workshop: Workshop) -> None:
    assert workshop.once({"drop": 0.25}) == workshop.once({"drop": 0.25}) == ["b.md", "a.svg"]
    assert workshop.made == 1


def test_other_results_are_drawn_again(workshop: Workshop) -> None:
    workshop.once({"drop": 0.25})
    workshop.once({"drop": 0.26})
    assert workshop.made == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "plots" / "a.svg").unlink(),
        lambda folder: (folder / "b.md").write_text("edited", encoding="utf-8"),
        lambda folder: (folder / NAME).unlink(),
        lambda folder: (folder / NAME).write_text("[]", encoding="utf-8"),
        lambda folder: (folder / NAME).write_text('{"charts": {"from', encoding="utf-8"),
        lambda folder: (folder / NAME).write_text('{"charts": 1}', encoding="utf-8"),
    ],
    ids=["deleted", "edited", "record-deleted", "record-of-another-form", "record-cut", "entry-of-another-form"],
)
def test_what_was_deleted_or_changed_is_made_again(workshop: Workshop, damage: Callable[[Path], object]) -> None:
    workshop.once(1)
    damage(workshop.folder)
    workshop.once(1)
    assert workshop.made == 2
    assert {file.read_text(encoding="utf-8") for file in workshop.folder.rglob("*.[ms]*") if file.name != NAME} == {
        "drawn"
    }


def test_charts_and_report_are_remembered_apart(workshop: Workshop) -> None:
    workshop.once(1)
    workshop.once(1, what="report")
    workshop.once(1)
    assert workshop.made == 2


def test_a_second_all_writes_nothing_and_a_deleted_plot_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "synthetic"
    make_db(folder / "kv_transition.sqlite", n_bins=2, n_per_bin=10)
    settings = _settings(tmp_path)
    stages.every_stage(settings)
    before = _stamps(folder)
    assert {folder / "report.md", folder / "report.html", folder / "plots" / "pareto.png"} <= set(before)
    assert stages.every_stage(settings).json()["analyze"]["recomputed"] is False
    assert _stamps(folder) == before
    plot = folder / "plots" / "pareto.svg"
    bytes_before = plot.read_bytes()
    plot.unlink()
    stages.analyze_stage(settings)
    assert plot.read_bytes() == bytes_before


def _settings(runs: Path) -> Settings:
    given = ("experiment.exp_group_id=synthetic", f"output.runs_dir={runs}", "analysis.resamples=200")
    return load_settings(None, given, environ={})


def _stamps(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and ".sqlite" not in p.name}
