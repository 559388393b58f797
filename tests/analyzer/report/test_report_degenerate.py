"""Degenerate cases: whatever is missing, broken or too small, the report says so in words and stays whole."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analyzer.charts.draw import CHARTS
from analyzer.report.answers import AnswerKey, first_screen
from analyzer.report.build import markdown
from analyzer.report.caveats import limits
from analyzer.report.guards import guard
from analyzer.results.results import Results, read_results
from tests.analyzer.report_cases import DEGENERATE, GROUP, SMALL, SNAPKV, Rows, Series
from tests.analyzer.report_page import NOON, SETTINGS, SLIPS
from tests.analyzer.report_rows import write


def facts_of(tmp_path: Path, name: str = "facts", **changes: Any) -> Results:
    with closing(write(tmp_path / f"{name}.sqlite", Rows(**{**SMALL, **changes}))) as conn:
        return read_results(conn, GROUP)


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


@pytest.mark.parametrize("case", DEGENERATE)
def test_a_degenerate_case_still_gives_a_whole_report(case: str, tmp_path: Path) -> None:
    with closing(write(tmp_path / "facts.sqlite", Rows(**DEGENERATE[case]))) as conn:
        facts = read_results(conn, GROUP)
    guard(facts, partial=case == "partial")
    text = markdown(facts, SETTINGS, NOON)
    assert text.count("\n## ") == 12
    assert SLIPS.findall(text) == []
    assert text.index("> **") < text.index("### "), "the verdict is the first thing said"


def test_one_bin_leaves_out_what_compares_lengths(tmp_path: Path) -> None:
    text = markdown(facts_of(tmp_path, **DEGENERATE["one_bin"]), SETTINGS, NOON)
    assert "Which budget is safe at which length?" not in text
    assert "over 1 length bin;" in text


def test_one_budget_has_no_largest_step(tmp_path: Path) -> None:
    text = said(facts_of(tmp_path, **DEGENERATE["one_budget"]))
    assert "at full cache to" in text
    assert "largest step" not in text


def test_one_example_cannot_tell_and_says_how_many_it_needs(tmp_path: Path) -> None:
    assert "cannot tell with 2 pairs" in said(facts_of(tmp_path, **DEGENERATE["one_example"]))


def test_only_full_cache_has_no_verdict(tmp_path: Path) -> None:
    assert "Only full cache was run" in said(facts_of(tmp_path, **DEGENERATE["full_cache_only"]))


def test_all_failed_is_told_as_failures_with_nothing_to_lose(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["all_failed"])
    assert "no verdict, because every request failed at full cache (20 of 20)" in said(facts)
    assert "`kvt status` says why they failed" in said(facts)
    assert "Over all levels, 80 of 80 requests failed (100%)." in said(facts)
    assert "Latency with 50% of the cache kept: none was measured" in said(facts)
    assert "| all levels | 80 | 80 (100%) |" in markdown(facts, SETTINGS, NOON)


def test_partial_stands_above_the_verdict_with_its_counts(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, pending=3)
    text = markdown(facts, SETTINGS, NOON)
    assert text.index("PARTIAL: 3 of 80 requests (3.8%)") < text.index("> **SnapKV (sees the question):")
    assert "77 responses + 0 failures + 3 pending = 80 requests." in text


def test_unverified_stands_above_the_verdict_and_in_every_table_of_levels(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["unverified"])
    text = markdown(facts, SETTINGS, NOON)
    alarm = "UNVERIFIED: the budget is a label; nothing shows that the server applied it."
    assert text.index(alarm) < text.index("> **Unverified, SnapKV (sees the question):")
    levels = text[text.index("## Levels") : text.index("## Series against")]
    assert levels.count("UNVERIFIED") == 2
    assert "Memory of SnapKV (sees the question) with" in said(facts)
    assert "not known, because what the server kept is unverified" in said(facts)


def test_without_full_cache_nothing_is_claimed(tmp_path: Path) -> None:
    text = said(facts_of(tmp_path, **DEGENERATE["no_baseline"]))
    assert "no verdict: there is no full-cache run to compare with" in text
    assert "no loss can be told" in text
    assert "safe to" not in text


def test_an_empty_bin_is_shown_with_n_0(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["empty_bin"])
    text = markdown(facts, SETTINGS, NOON)
    assert "No examples in 241–480 tokens." in said(facts)
    assert "| 241–480 | 0 | – |" in text


def test_a_note_of_the_sweep_is_a_sentence_and_keeps_the_config_key_as_it_is_written(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    notes = [f"{facts.task}: decoding.max_tokens 7, the task's own is 30", f"{facts.task}: no answer prefix over chat"]
    session = replace(facts.sessions[-1], notes_json=json.dumps(notes))
    lines = limits(replace(facts, sessions=[session]), SETTINGS)
    assert "decoding.max_tokens 7, the task's own is 30." in lines
    assert "No answer prefix over chat." in lines


def test_an_effect_within_the_controls_noise_is_said_to_be_so(tmp_path: Path) -> None:
    text = said(facts_of(tmp_path, n=80, control_flips=8, budgets=(1.0, 0.8, 0.5, 0.1, 0.05)))
    assert "8 of 160 answers changed score" in text
    assert "The effects at 80% and 50% are no larger than the noise of the A/A control." in text


def test_a_client_that_was_too_slow_is_a_footnote_to_a_question_about_answers(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, client="CLIENT-BOUND", error_bound_ms=4.0)
    screen = first_screen(facts, SETTINGS)
    assert (screen.alarms, screen.caveats) == ((), ())  # slow clients give the same answers
    assert "CLIENT-BOUND" not in " ".join(kind.says(facts) for kind in CHARTS)
    assert "±4.00 ms" in CHARTS[-1].says(facts)
    text = markdown(facts, SETTINGS, NOON)
    assert text.count("CLIENT-BOUND: ") == 1
    (line,) = [line for a in screen.answers if a.key == AnswerKey.LIMITS for line in a.lines if "BOUND" in line]
    assert line.startswith("CLIENT-BOUND: the client's own error is more than 5% of TTFT ")


def test_a_client_whose_error_is_small_beside_every_figure_is_not_called_bound(tmp_path: Path) -> None:
    text = markdown(facts_of(tmp_path, client="CLIENT-BOUND", error_bound_ms=0.01), SETTINGS, NOON)
    assert "CLIENT-BOUND: " not in text
    assert "±0.01 ms" in text


def test_the_tiny_model_caveat_is_only_for_the_reference_model(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    other = replace(facts, runs=[replace(run, model_name="big") for run in facts.runs])
    assert "reference model is tiny" in said(facts)
    assert "reference model is tiny" not in said(other)


def test_a_dead_knob_that_was_allowed_stands_above_everything(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["dead_knob"])
    told = first_screen(facts, SETTINGS)
    assert any(a.name == "DEAD KNOB" and "--allow-dead-knob" in a.says for a in told.alarms)
    assert any(alarm.name == "UNVERIFIED" for alarm in told.alarms)
    assert "dead (a destructive budget changed nothing)" in said(facts)
    assert "DEAD KNOB" not in said(facts_of(tmp_path, name="other"))


def test_a_second_look_says_that_it_is_one_and_what_it_may_spend(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["second_look"])
    text = said(facts)
    assert "Look 2: examples may be added after an analysis, so this one's claims spend 1/4 of alpha" in text
    assert "a wrong “safe” or a wrong “broken” has a chance of at most 0.625% each" in text
    assert "one-sided at 0.625%" in markdown(facts, SETTINGS, NOON)


def test_a_ceiling_is_named_where_it_limits_the_verdict(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, **DEGENERATE["second_look"])
    assert "Ceiling: full cache is always right here, so a smaller cache can only lose." in said(facts)
    verdicts = markdown(facts, SETTINGS, NOON).split("## Verdict by series")[1].split("\n\n")[1]
    assert verdicts.rstrip().endswith("| confirmatory | ceiling |")


def test_a_cap_in_tokens_is_shown_as_asked_and_as_applied(tmp_path: Path) -> None:
    text = markdown(facts_of(tmp_path, **DEGENERATE["token_caps"]), SETTINGS, NOON)
    levels = text[text.index("## Levels") : text.index("## Series against")]
    assert "| Budget asked |" in levels
    assert "128 tokens (53% kept)" in levels


def test_loss_is_told_absolute_and_relative_to_full_cache(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, n=80, full_acc=0.6, series=(Series("snapkv", lambda b, t: 0.6 if b > 0.3 else 0.15),))
    assert "to 0.15 [0.10, 0.21] with 20% of the cache kept, 25% of full cache's: a paired loss of 0.45" in said(facts)
    text = markdown(facts, SETTINGS, NOON)
    assert "| snapkv | 0.2 | 0.15 [0.10, 0.21] | 25% |" in text


def test_series_beyond_the_first_and_single_bins_carry_their_role(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, series=(SNAPKV, Series("random", lambda b, t: b)))
    assert "confirmatory; that of Random eviction is Holm-adjusted; single length bins are exp" in said(facts)
    text = markdown(facts, SETTINGS, NOON)
    assert "| Holm-adjusted |" in text
    assert "Exploratory: bins are not adjusted for being many." in text
