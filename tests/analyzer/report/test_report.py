"""report.md and report.html: guarded, complete, readable in degenerate cases, and the same bytes every time."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from analyzer.report.answers import AnswerKey, first_screen
from analyzer.report.build import ReportPaths, build_report, markdown
from analyzer.report.guards import guard
from analyzer.report.page import HEADINGS, under_headings
from analyzer.report.terminal_verdict import verdict_lines
from analyzer.results.results import Results, read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.errors import ContradictedError, MissingPrerequisiteError
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import RunPaths, run_paths
from kvt_async.contract.schema import connect_for_reading
from tests.analyzer.report_cases import GROUP, SNAPKV, Series, cliff
from tests.analyzer.report_page import NOON, SETTINGS, SLIPS, demo_report
from tests.analyzer.report_rows import facts_of
from tests.analyzer.synthetic import make_db

LATER = datetime(2026, 1, 3, 9, tzinfo=UTC)


@pytest.fixture
def demo() -> Iterator[sqlite3.Connection]:
    """A database as `make demo` leaves it, opened as the report opens it: for reading."""
    with closing(connect_for_reading(demo_report()[0])) as conn:
        yield conn


@pytest.fixture
def report() -> ReportPaths:
    return demo_report()[1]


def said(facts: Results) -> str:
    told = first_screen(facts, SETTINGS)
    return "\n".join(
        [
            *(alarm.line for alarm in told.alarms),
            told.headline,
            *told.caveats,
            *(line for a in told.answers for line in a.lines),
        ]
    )


# ---------------------------------------------------------------- what is written


def test_the_first_screen_answers_every_question_in_order(report: ReportPaths) -> None:
    text = report.md.read_text(encoding="utf-8")
    questions = re.findall(r"^### (.*\?)$", text, re.MULTILINE)
    assert questions == [
        "What changed with the KV budget?", "Where does it break?", "Which budget is safe at which length?",
        "Wrong answers or failures?", "What does a smaller budget buy?", "Was the budget applied?",
        "How sure is this?", "What limits it?",
    ]  # fmt: skip
    assert text.index("> **SnapKV (sees the question): ") < text.index(questions[0])
    assert "no attention redundancy, so its curves are steeper" in text


def test_the_sections_and_every_picture_are_there(report: ReportPaths) -> None:
    text = report.md.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "Verdict", "Verdict by series", "Charts", "Levels", "Series against series", "Sanity and error budget",
        "Efficiency", "A/A control", "Step rule", "Runs and bins", "Provenance", "Definitions",
    ]  # fmt: skip
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == 9, "two of eleven show nothing new"
    assert all((report.md.parent / picture).is_file() for picture in pictures)
    left_out = re.findall(r"\((?:no request failed|it repeats).*?; (plots/.*?)\)", text)
    assert left_out == ["plots/acc_by_bin.png", "plots/fail_by_bin.png"]
    assert all((report.md.parent / picture).is_file() for picture in left_out)
    assert "<" not in re.sub(r"<1|<0\.1|&lt;", "", text), "report.md is Markdown only"


def test_markdown_tables_have_as_many_cells_in_every_row(report: ReportPaths) -> None:
    lines = report.md.read_text(encoding="utf-8").splitlines()
    widths = [line.count(" | ") if line.startswith("| ") else None for line in lines]
    for before, after in pairwise(widths):
        assert before is None or after is None or before == after


def test_html_is_one_file_that_needs_nothing_else(report: ReportPaths) -> None:
    html = report.html.read_text(encoding="utf-8")
    assert report.html.stat().st_size < 3_000_000
    assert "default-src 'none'" in html
    page = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert re.findall(r"(?:src|href)=[\"'](?!data:|#)([^\"']*)", page) == []


def test_the_same_database_gives_the_same_bytes_but_for_the_generated_at_line(
    demo: sqlite3.Connection, report: ReportPaths
) -> None:
    folder = report.md.parent
    before = [p.read_text(encoding="utf-8").splitlines() for p in (report.md, report.html)]
    again = build_report(demo, SETTINGS, RunPaths(folder, folder / "demo.sqlite"), now=LATER)
    after = [p.read_text(encoding="utf-8").splitlines() for p in (again.md, again.html)]
    for old, new in zip(before, after, strict=True):
        changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
        assert changed == [("Generated at 2026-01-02 12:00:00 UTC", "Generated at 2026-01-03 09:00:00 UTC")]


def test_provenance_gives_contract_invocations_and_the_commands_to_reproduce(report: ReportPaths) -> None:
    text = report.md.read_text(encoding="utf-8")
    assert "| model.name | reference |" in text
    assert "| decoding.max_tokens | 8 |" in text
    assert "kvt sweep -c configs/experiments/demo.yaml\nkvt all -c configs/experiments/demo.yaml" in text
    assert "±0.42 ms (loop lag p99)" in text


def test_names_from_outside_cannot_break_table_or_page(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, series=(Series("a|b <script>alert(1)</script>", cliff(48)),))
    text = markdown(facts, SETTINGS, NOON)
    assert "a\\|b &lt;script>" in text


def test_prices_give_the_cost_and_their_absence_is_said(tmp_path: Path) -> None:
    priced = load_settings(
        None,
        [f"experiment.exp_group_id={GROUP}", "analysis.prices={prompt_per_mtok: 10, completion_per_mtok: 30}"],
        environ={},
    )
    facts = facts_of(tmp_path)
    assert re.search(r"0\.\d{4} USD", markdown(facts, priced, NOON))
    assert "set analysis.prices" in markdown(facts, SETTINGS, NOON)


def test_the_terminal_verdict_fits_twelve_lines_of_a_hundred_columns(demo: sqlite3.Connection) -> None:
    lines = verdict_lines(read_results(demo, GROUP), SETTINGS)
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("SnapKV (sees the question): ")
    assert any("A/A control" in line for line in lines)


def test_every_answer_has_one_heading_on_the_page_whatever_that_says(demo: sqlite3.Connection) -> None:
    assert sorted(key for keys in HEADINGS.values() for key in keys) == sorted(AnswerKey)
    screen = first_screen(read_results(demo, GROUP), SETTINGS)
    on_page = [line for section in under_headings(screen) for line in section["lines"]]
    assert on_page == [line for answer in screen.answers for line in answer.lines]
    terminal = " ".join(" ".join(verdict_lines(read_results(demo, GROUP), SETTINGS)).split())
    for key in (AnswerKey.OTHER_SERIES, AnswerKey.BUYS, AnswerKey.APPLIED, AnswerKey.CERTAINTY):
        assert screen.claims(key)[0] in terminal


def test_the_analyzers_own_rows_give_a_whole_report(tmp_path: Path) -> None:
    settings = load_settings(None, ["experiment.exp_group_id=synthetic", "analysis.resamples=500"], environ={})
    db = make_db(tmp_path / "facts.sqlite", n_bins=2, n_per_bin=8, budgets=(1.0, 0.5, 0.2), failures=0.1, metric="em")
    with closing(connect_for_reading(db, write_derived=True)) as conn:
        score(conn, "synthetic")
        analyze(conn, settings)
        facts = read_results(conn, "synthetic", volumes=True)
    guard(facts, partial=False)
    text = markdown(facts, settings, NOON)
    assert text.count("\n## ") == 13
    assert "SnapKV (sees the question): " in text
    assert SLIPS.findall(text) == []


# ---------------------------------------------------------------- guards


def test_without_analysis_the_report_names_the_command_to_run(tmp_path: Path) -> None:
    facts = replace(facts_of(tmp_path), stats={}, verdicts=[])
    with pytest.raises(MissingPrerequisiteError, match="kvt analyze -c CONFIG"):
        guard(facts, partial=True)


def test_a_run_without_a_verdict_leaves_a_page_that_claims_nothing_and_replaces_no_report(
    demo: sqlite3.Connection, tmp_path: Path
) -> None:
    paths = run_paths(str(tmp_path), GROUP)
    paths.run_dir.mkdir()
    unanalysed = replace(read_results(demo, GROUP), stats={}, verdicts=[])
    with pytest.raises(MissingPrerequisiteError):
        build_report(demo, SETTINGS, paths, results=unanalysed)
    page = paths.report_md.read_text()
    assert "**No verdict yet.**" in page
    assert "Run `kvt analyze" in page
    assert "safe" not in page
    paths.report_md.write_text("an earlier report")
    with pytest.raises(MissingPrerequisiteError):
        build_report(demo, SETTINGS, paths, results=unanalysed)
    assert paths.report_md.read_text() == "an earlier report"


def test_pending_requests_need_partial(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, pending=3)
    with pytest.raises(MissingPrerequisiteError, match="3 requests have no outcome yet") as refusal:
        guard(facts, partial=False)
    assert refusal.value.exit_code == 3
    assert "--partial" in str(refusal.value)
    guard(facts, partial=True)


def test_an_analysis_older_than_the_results_is_refused(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    run_id = facts.runs[1].run_id
    stale = replace(facts, stats={k: replace(s, n=s.n - 1) if k == (run_id, 0) else s for k, s in facts.stats.items()})
    with pytest.raises(MissingPrerequisiteError, match=r"snapkv/aware 0\.5 has 20 outcomes, 19 were analysed"):
        guard(stale, partial=False)


def test_a_contradicted_budget_is_refused_with_both_values(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, series=(replace(SNAPKV, evidence="contradicted"),))
    with pytest.raises(ContradictedError) as refusal:
        guard(facts, partial=True)
    assert "snapkv/aware 0.2: asked 0.200, applied 1.000 (median; 20 of 20 responses off)" in str(refusal.value)
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("key", ["margin", "alpha"])
def test_sentences_never_quote_another_margin_or_alpha_than_the_verdicts_were_made_with(
    demo: sqlite3.Connection, key: str, tmp_path: Path
) -> None:
    asked = load_settings(None, [f"experiment.exp_group_id={GROUP}", f"analysis.{key}=0.2"], environ={})
    with pytest.raises(MissingPrerequisiteError, match=f"made with analysis.{key} 0.05, the config says 0.2"):
        build_report(demo, asked, RunPaths(tmp_path, tmp_path / "demo.sqlite"), now=NOON)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_group_is_refused(demo: sqlite3.Connection) -> None:
    with pytest.raises(MissingPrerequisiteError, match="kvt sweep"):
        read_results(demo, "nothing")
