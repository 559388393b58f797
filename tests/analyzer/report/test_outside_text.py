"""Text from outside (answers, models, servers, names) is shown and never obeyed: terminal, Markdown, CSV."""

import csv
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from analyzer.cli import app
from analyzer.report.build import markdown
from analyzer.report.html import prose
from kvt_async.contract.load import dump_yaml, load_settings
from kvt_async.contract.visible import visible
from tests.analyzer.report_cases import Series, cliff
from tests.analyzer.report_page import NOON, SETTINGS
from tests.analyzer.report_rows import facts_of
from tests.analyzer.synthetic import make_db

CLEAR_AND_TITLE = "\x1b[2J\x1b]0;title\x07 red"
NASTY = "x <img src=http://h/a.png> ![t](http://h/b.png) [l](http://h) \n# head\x1b[2J"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    if shown == text:
        assert visible(shown) == shown


def test_controls_are_shown_as_escapes_and_letters_stay() -> None:
    assert visible(CLEAR_AND_TITLE) == "\\x1b[2J\\x1b]0;title\\x07 red"
    assert visible("café\t한국\n\u202eabc") == "café\t한국\n\\u202eabc"


def group(tmp_path: Path, *texts: str) -> Path:
    """A config of a scored group whose first answers are `texts`."""
    run_dir = tmp_path / "runs" / "synthetic"
    run_dir.mkdir(parents=True)
    make_db(run_dir / "kv_transition.sqlite", n_bins=1, n_per_bin=max(4, len(texts)), said=texts)
    settings = load_settings(
        None, ["experiment.exp_group_id=synthetic", f"output.runs_dir={tmp_path / 'runs'}", "analysis.charts=false"],
        environ={},
    )  # fmt: skip
    config = tmp_path / "group.yaml"
    config.write_text(dump_yaml(settings), encoding="utf-8")
    done = CliRunner().invoke(app, ["score", "-c", str(config), "-q"])
    assert done.exit_code == 0
    return config


def test_show_prints_what_an_answer_would_have_done_to_the_terminal(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["show", "-c", str(group(tmp_path, CLEAR_AND_TITLE)), "--sample", "4"])
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert "\\x1b[2J" in done.stdout


@given(st.text())
def test_a_line_of_markdown_holds_no_tag_picture_link_or_second_line(name: str) -> None:
    line = prose(f"a {name} b")
    assert not {"<", "\n", "\r", "\x1b"} & set(line)
    assert "](" not in line
    assert "![" not in line


def test_names_cannot_load_a_picture_or_open_a_tag_anywhere_in_report_md(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, series=(Series(NASTY, cliff(48)),))
    text = markdown(facts, SETTINGS, NOON)
    assert "<img" not in text
    assert "![t](" not in text
    assert "](http://h" not in text
    assert "\x1b" not in text
    assert not re.search("^# head", text, re.MULTILINE)
    assert "&lt;img src=http://h/a.png>" in text
    assert len(re.findall(r"\]\(plots/\w+\.png\)", text)) == 9  # our own pictures stand


FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(1)", "- an item"]
TEXTS = ["plain", "-5", "+3.5", "3 = 3", "'quoted"]


def cells(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file)][: len(FORMULAS) + len(TEXTS)]


def test_a_spreadsheet_computes_no_answer_and_numbers_stay_numbers(tmp_path: Path) -> None:
    config = group(tmp_path, *FORMULAS, *TEXTS)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "out.csv"), "-c", str(config)])
    assert done.exit_code == 0
    assert cells(tmp_path / "out.csv") == [f"'{text}" for text in FORMULAS] + TEXTS
    assert re.search(r"\d+ texts that a spreadsheet would take for formulas begin with '", done.stdout)


@pytest.mark.parametrize("options", [["out.csv", "--exact"], ["out.parquet"]])
def test_exact_texts_are_to_be_had(tmp_path: Path, options: list[str]) -> None:
    config, out = group(tmp_path, *FORMULAS, *TEXTS), tmp_path / options[0]
    done = CliRunner().invoke(app, ["export", str(out), *options[1:], "-c", str(config)])
    assert done.exit_code == 0
    assert "spreadsheet" not in done.stdout
    found = cells(out) if out.suffix == ".csv" else pl.read_parquet(out)["text"].to_list()[:10]
    assert found == FORMULAS + TEXTS
