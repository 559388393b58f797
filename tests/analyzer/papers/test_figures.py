"""`kvt figures`: charts of the size of a column, and words for the caption in place of a title."""

import json
import re
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from analyzer.charts.style import ChartSize
from analyzer.papers.paper_figures import suite_figures
from analyzer.papers.paper_size import inches
from analyzer.results.suite_alarms import suite_alarms
from kvt_async.cli import app
from kvt_async.contract.errors import ConfigError
from tests.analyzer.suite_cases import suite_of


def kvt(*words: object) -> Result:
    return CliRunner().invoke(app, ["figures", *(str(word) for word in words)])


def test_a_pdf_is_as_wide_as_a_column_and_its_words_are_for_the_caption(swept: Path, tmp_path: Path) -> None:
    done = kvt(swept, "--width", "3.3in", "--no-titles", "--figures", "accuracy,loss", "--out", tmp_path, "--json")
    figures = json.loads(done.output)["figures"]
    assert [Path(figure["file"]).name for figure in figures] == ["acc_by_budget.pdf", "drop_decomposition.pdf"]
    assert "broken from 50% down" in figures[0]["caption"]
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ", Path(figures[0]["file"]).read_bytes())
    assert box is not None
    assert float(box[1]) == pytest.approx(3.3 * 72, abs=0.1)


def test_a_height_is_the_whole_figures_and_a_title_can_stand_in_it(swept: Path, tmp_path: Path) -> None:
    words = (swept, "--figures", "accuracy", "--width", "84mm", "--height", "2.4in", "--out", tmp_path)
    kvt(*words, "--format", "png", "--no-titles")
    wide, high = struct.unpack(">II", (tmp_path / "acc_by_budget.png").read_bytes()[16:24])
    assert wide == pytest.approx(84 / 25.4 * 300, abs=2)
    assert high == pytest.approx(2.4 * 300, abs=12)
    assert "by itself it has" in str(kvt(*words, "--height", "1.5in", "--format", "svg").exception)
    kvt(*words[:-4], "--out", tmp_path, "--format", "svg")
    assert "no budget proven safe" in (tmp_path / "acc_by_budget.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["wide", "0in", "-3in", "3.3 furlongs", "90in", ""])
def test_what_is_no_width_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no width or height"):
        inches(text, "--width")


def test_a_figure_that_there_is_not_is_answered_with_those_that_are(swept: Path, tmp_path: Path) -> None:
    error = kvt(swept, "--figures", "acuracy", "--out", tmp_path).exception
    assert "no figure acuracy" in str(error)
    assert "accuracy (acc_by_budget)" in str(error)


def test_captions_of_a_suite_speak_of_paper_and_carry_its_alarms(tmp_path: Path) -> None:
    suite = suite_of(tmp_path)
    figures = {figure.name: figure for figure in suite_figures(suite, set())}
    assert set(figures) == {"verdict_by_task", "task_budget_map"}
    assert not any(word in figure.caption for figure in figures.values() for word in ("hover", "below."))
    assert all(alarm.stamp in figure.caption for figure in figures.values() for alarm in suite_alarms(suite))
    assert figures["task_budget_map"].draw(ChartSize(240, narrow=True), False)["datasets"]
