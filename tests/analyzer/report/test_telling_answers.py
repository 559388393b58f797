"""The answers that a report shows: those that changed most, from every length, as text and nothing else."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analyzer.cli import app
from analyzer.report.build import html, markdown
from analyzer.results.results import Results, read_results
from analyzer.results.telling_answers import ANSWER, MOST
from kvt_async.contract.load import dump_yaml, load_settings
from kvt_async.contract.schema import connect_for_reading
from tests.analyzer.browser import Browser
from tests.analyzer.report_page import NOON
from tests.analyzer.synthetic import make_db

HOSTILE = (
    "</pre></script><script>document.title = 'taken'</script><img src=x onerror=alert(1)> \x1b[2J\u202e | [l](http://h)"
)
LOSES = {0.5: {12, 13}, 0.2: set(range(36)) - {30}}
"""Which answers a budget gets wrong, of three bins of twelve: 0.5 those of one bin, 0.2 all but one."""


def _reply(series: str, budget: float, repeat: int, seq: int) -> dict[str, str]:
    if seq in LOSES.get(budget, ()):
        return {"text": HOSTILE if seq == 12 else "word " * 2_000 if seq == 13 else "nothing of it"}
    if budget == 1.0 and seq == 30:
        return {"text": "wrong at full cache alone"}
    return {}


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Results, Path]]:
    """A scored group without an analysis, and where its pages go."""
    folder = tmp_path_factory.mktemp("telling")
    (folder / "runs/synthetic").mkdir(parents=True)
    db = folder / "runs/synthetic/kv_transition.sqlite"
    make_db(db, n_bins=3, n_per_bin=12, p_correct=1.0, reply=_reply)
    settings = load_settings(
        None,
        ["experiment.exp_group_id=synthetic", f"output.runs_dir={folder / 'runs'}", "analysis.charts=false"],
        environ={},
    )
    (folder / "group.yaml").write_text(dump_yaml(settings), encoding="utf-8")
    assert CliRunner().invoke(app, ["score", "-c", str(folder / "group.yaml"), "-q"]).exit_code == 0
    with closing(connect_for_reading(db)) as conn:
        yield read_results(conn, "synthetic", volumes=True), folder


def test_losses_begin_at_the_largest_budget_that_has_some_and_go_down_through_every_length(
    group: tuple[Results, Path],
) -> None:
    telling = group[0].telling
    assert telling is not None
    rows = telling.rows
    assert len(rows) == MOST
    assert len({row.example for row in rows}) == MOST, "an example is shown once"
    assert [row.level.rpartition(", ")[2] for row in rows[:3]] == ["50% of the cache kept"] * 3
    assert [(row.score_full > row.score_here) for row in rows[:3]] == [True, True, False], "one that gained"
    below = rows[3:]
    assert {row.level.rpartition(", ")[2] for row in below} == {"20% of the cache kept"}
    per_length = [sum(row.length == b.label for row in below) for b in group[0].bins]
    assert max(per_length) - min(per_length) <= 1, "the lengths take turns"
    assert all(sum(len(piece.text) for piece in row.here) <= ANSWER + 2 for row in rows)
    marked = "".join(piece.text for piece in rows[2].full if not piece.same)
    assert "wrong" in marked
    assert "2 answers scored less than full cache's and 1 more" in telling.says


def test_an_answer_is_shown_and_never_obeyed(group: tuple[Results, Path], browser: Browser) -> None:
    results, folder = group
    settings = load_settings(None, ["experiment.exp_group_id=synthetic", "analysis.charts=false"], environ={})
    text = html(results, settings, NOON)
    assert text == html(results, settings, NOON)
    assert "\x1b" not in text
    (folder / "report.html").write_text(text, encoding="utf-8")
    browser.open(folder / "report.html", width=390)
    assert browser.complaints == []
    assert browser.js("document.title") == "KV budget report: synthetic"
    assert browser.js("document.querySelectorAll('#changed img, #changed script').length") == 0
    assert browser.js("document.querySelector('#changed').textContent.includes('onerror=alert(1)')")
    assert browser.js("document.querySelectorAll('#changed article').length") == MOST
    assert browser.js("[...document.querySelectorAll('.changed details')].some(prompt => prompt.open)") is False
    assert browser.js("document.documentElement.scrollWidth") == 390
    lines = [line for line in markdown(results, settings, NOON).splitlines() if "/pre>" in line]
    assert len(lines) == 1
    assert "</pre>" not in lines[0]
    assert "](http" not in lines[0]
    assert lines[0].replace("\\|", "").count("|") == 9, "a row of eight cells"
