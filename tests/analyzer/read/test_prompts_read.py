"""Prompts that the server read shorter than they were sent: nothing is claimed of them, and everything says so."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from analyzer.cli import app
from analyzer.stages import check_stage, every_stage, report_stage
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.formulas.prompt_counts import PromptCounts, is_short, judge, together
from kvt_async.contract.load import dump_yaml, load_settings
from kvt_async.contract.settings import Settings
from tests.analyzer.synthetic import make_db
from tests.worlds import query

LONG_AND_SHORT = {"n_bins": 2, "lengths": (204, 4004), "n_per_bin": 40, "p_correct": 1.0, "control_repeats": 0}


def cut_at(window: int) -> Callable[[int], int]:
    return lambda sent: min(sent, window)


# ---- what counts say


def test_a_count_below_ours_by_more_than_a_template_is_a_cut_prompt() -> None:
    assert is_short(500, 4004)
    assert not is_short(192, 200)  # 8 tokens
    assert is_short(191, 200)
    assert not is_short(3924, 4004)  # 2%
    assert is_short(3923, 4004)


def test_one_percent_may_be_an_accident() -> None:
    counts = [(1000, 1000, 99), (500, 1000, 1)]
    assert not judge(counts, exact=True).are_short
    assert judge([*counts, (500, 1000, 1)], exact=True).are_short


def test_the_sentence_gives_both_numbers_and_both_lengths() -> None:
    counts = together([judge([(204, 204, 40), (500, 4004, 40)], exact=True)] * 3)
    assert counts.sentence == (
        "120 of 240 prompts were read shorter than sent (4,004 → 500): the server cut them, so lengths and budgets are "
        "not those named"
    )


def test_a_run_that_was_read_whole_is_not_counted_with_one_that_was_cut() -> None:
    whole, cut = judge([(1000, 1000, 50)], exact=True), judge([(500, 1000, 10), (1000, 1000, 40)], exact=True)
    assert (together([whole, cut]).n_short, together([whole, cut]).n) == (10, 100)


def test_a_few_cut_prompts_of_one_run_are_few_of_many_and_are_said_all_the_same() -> None:
    whole, cut = judge([(1000, 1000, 80)], exact=True), judge([(500, 1000, 1), (1000, 1000, 79)], exact=True)
    assert cut.are_short
    assert together([whole, whole, cut]).are_short
    assert together([whole, whole, cut]).sentence.startswith(
        "1 of 240 prompts was read shorter than sent (1,000 → 500)"
    )
    assert not together([whole, whole]).are_short


@pytest.mark.parametrize(
    ("counts", "short"),
    [
        ([(150, 200, 40), (500, 2000, 20), (500, 4000, 20)], 40),  # one window
        ([(150, 200, 40), (1600, 2000, 20), (3100, 4000, 20)], 0),  # estimates that are off
        ([(500, 2000, 20), (500, 2100, 20)], 0),  # lengths that may be one length
        ([(500, 2000, 1), (500, 4000, 1), (400, 500, 20)], 0),  # two may meet by chance
        ([(20, 25, 10), (20, 250, 10)], 0),  # no window is so small
    ],
)
def test_estimated_lengths_tell_by_equal_counts_alone(counts: list[tuple[int, int, int]], short: int) -> None:
    found = judge(counts, exact=False)
    assert found.n_short == short
    assert found.are_short == bool(short)


def test_a_larger_tokenizer_does_not_hide_a_window() -> None:
    """1.6 of its tokens for one of ours, and a window of 5,000 of them: no count lies below ours."""
    found = judge([(1600, 1000, 40), (5000, 3500, 20), (5000, 4900, 20)], exact=True)
    assert found.are_short
    assert "equal counts over different lengths" in found.sentence


def test_one_count_for_every_length_says_nothing_of_lengths() -> None:
    found = judge([(20, 25, 10), (20, 250, 10)], exact=False)
    assert "20 prompt tokens whatever the prompt's length" in found.note


@given(st.floats(0.3, 3.0).filter(lambda f: abs(f - 1) > 0.15), st.lists(st.integers(200, 9000), min_size=3))
def test_a_steady_factor_is_another_tokenizer_either_way(factor: float, lengths: list[int]) -> None:
    found = judge([(round(factor * n), n, 1) for n in lengths], exact=False)
    assert found.factor == pytest.approx(factor, rel=0.02)
    assert "another tokenizer" in found.note


@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 50)), min_size=1))
def test_equal_counts_say_nothing_against_anything(lengths: list[tuple[int, int]]) -> None:
    found = judge([(n, n, k) for n, k in lengths], exact=True)
    assert (found.n_short, found.factor, found.sentence, found.note) == (0, None, "", "")


def test_nothing_counted_is_nothing_said() -> None:
    assert judge([], exact=True) == PromptCounts()
    assert judge([(0, 4000, 50)], exact=True) == PromptCounts()


def test_a_tokenizer_that_counts_steadily_less_is_an_alarm_and_named_as_what_it_may_be() -> None:
    found = judge([(round(0.6 * n), n, 1) for n in range(200, 4000, 100)], exact=True)
    assert found.are_short
    assert "0.6 times the prompt tokens" in found.note


# ---- what becomes of a group


def group(tmp_path: Path, *overrides: str, **asked: Any) -> Settings:
    run_dir = tmp_path / "runs" / "synthetic"
    run_dir.mkdir(parents=True)
    make_db(run_dir / "kv_transition.sqlite", **LONG_AND_SHORT, **asked)
    return load_settings(
        None,
        [
            "experiment.exp_group_id=synthetic", f"output.runs_dir={tmp_path / 'runs'}", "analysis.resamples=200",
            "analysis.charts=false", *overrides,
        ],
        environ={},
    )  # fmt: skip


def test_no_claim_rests_on_prompts_that_were_cut(tmp_path: Path) -> None:
    settings = group(tmp_path, reads=cut_at(500))
    found = every_stage(settings).json()
    assert found["exit_code"] == 4
    (alarm,) = found["alarms"]
    assert alarm["name"] == "READ SHORT"
    assert alarm["says"].startswith("120 of 240 prompts were read shorter than sent (")
    assert found["verdict"][0].startswith("READ SHORT: 120 of 240 prompts were read shorter than sent (")
    assert not any("proven" in line for line in found["verdict"])
    claims = query(settings, "SELECT verdict, evidence, safe_budget, zone_low, zone_high, collapse_budget "
                            "FROM transition_summary")  # fmt: skip
    assert set(claims) == {("unverified", "unverified", None, None, None, None)}
    assert set(query(settings, "SELECT status FROM run_evidence")) == {("unverified",)}
    report = Path(found["report"]["report_md"]).read_text("utf-8")
    first_screen = report.split("## Verdict by series")[0]
    verdict = "> **SnapKV (sees the question): unverified: 120 of 240"
    assert first_screen.index("READ SHORT: 120 of 240") < first_screen.index(verdict)
    assert "proven to" not in first_screen
    assert "within its uncertainty" not in first_screen
    assert "a wrong “safe”" not in first_screen
    assert "verified on every level" not in first_screen.replace("UNVERIFIED", "")
    page = Path(found["report"]["report_html"]).read_text("utf-8")
    assert '<p class="alarm">READ SHORT: 120 of 240 prompts' in page


def test_prompts_read_whole_keep_their_verdict(tmp_path: Path) -> None:
    settings = group(tmp_path)
    found = every_stage(settings).json()
    assert (found["exit_code"], found["alarms"]) == (0, [])
    assert set(query(settings, "SELECT evidence FROM transition_summary")) == {("verified",)}
    assert query(settings, "SELECT verdict FROM transition_summary WHERE bin_idx = -1") == [("no_transition_in_range",)]


def test_an_analysis_of_another_version_is_made_anew_before_it_is_reported_or_checked(tmp_path: Path) -> None:
    """It may lack an alarm that this version would raise."""
    settings = group(tmp_path, "check=[{name: answers, kind: min_accuracy, value: 0.1}]", reads=cut_at(500))
    every_stage(settings)
    db = sqlite3.connect(Path(settings.output.runs_dir) / "synthetic" / "kv_transition.sqlite")
    with db:
        db.execute("UPDATE analysis_state SET detail_json = json_set(detail_json, '$.analyzer_version', '4')")
    for stage in (report_stage, check_stage):
        with pytest.raises(MissingPrerequisiteError, match="analyzer 4 made the stored analysis"):
            stage(settings)
    every_stage(settings, recompute=True)
    assert report_stage(settings).json()["alarms"][0]["name"] == "READ SHORT"


def test_a_check_fails_whatever_it_asserts_where_prompts_were_cut(tmp_path: Path) -> None:
    settings = group(tmp_path, "check=[{name: answers, kind: min_accuracy, value: 0.1}]", reads=cut_at(500))
    every_stage(settings)
    found = check_stage(settings)
    assert found.results[0].passed
    assert not found.passed
    assert found.lines[0].startswith("ALARM READ SHORT: 120 of 240 prompts")
    assert found.json()["alarms"][0]["name"] == "READ SHORT"


def test_the_commands_end_with_4_and_json_says_why(tmp_path: Path) -> None:
    settings = group(tmp_path, reads=cut_at(500))
    config = tmp_path / "group.yaml"
    config.write_text(dump_yaml(settings), encoding="utf-8")
    for command in ("all", "analyze", "report"):
        done = CliRunner().invoke(app, [command, "-c", str(config), "--json"])
        assert done.exit_code == 4
        assert json.loads(done.stdout)["alarms"][0]["name"] == "READ SHORT"


def test_with_estimated_lengths_equal_counts_take_the_claims_back(tmp_path: Path) -> None:
    settings = group(tmp_path, reads=cut_at(200), tokenizer="approx:chars/4")
    found = every_stage(settings).json()
    assert found["exit_code"] == 4
    assert "(equal counts over different lengths)" in found["alarms"][0]["says"]


def test_another_models_tokenizer_is_one_line_below_the_verdict(tmp_path: Path) -> None:
    settings = group(tmp_path, reads=lambda sent: int(1.6 * sent))
    found = every_stage(settings).json()
    assert (found["exit_code"], found["alarms"]) == (0, [])
    report = Path(found["report"]["report_md"]).read_text("utf-8")
    assert report.split("## Levels")[0].count("The server counts 1.6 times the prompt tokens that we do") == 1
    assert any("1.6 times the prompt tokens" in line for line in found["verdict"])
