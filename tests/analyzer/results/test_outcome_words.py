"""Sentences and the table of what changes beside scores: only what is proven, and more than the control shows."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from analyzer.read.runs import Run
from analyzer.results.outcome_words import call_table, outcome_sentences, outcome_table
from analyzer.results.results import Results
from analyzer.store.tables import OutcomeChange, Verdict
from kvt_async.contract.vocabulary import Measure

_LISTS = "datasets bins verdicts drops comparisons clients sessions snapshots canaries drifts differences volumes"


def level(budget: float, repeat: int = 0, series: str = "snapkv") -> Run:
    full = budget == 1
    name = "full" if full else series
    return Run(f"{name}-{budget}-{repeat}", "d", name, name, budget, "fraction", "", "body", full, repeat, 0)


def change(budget: float, measure: Measure, full: float | None, here: float, **given: Any) -> OutcomeChange:
    """A change that is proven unless `given` says otherwise, with an interval of 0.05 on both sides."""
    by = None if full is None else here / full if measure == Measure.TOKENS else here - full
    row = OutcomeChange(
        series="full" if budget == 1 else "snapkv",
        kv_budget=budget,
        repeat_idx=1 if budget == 1 else 0,
        measure=measure,
        n=100,
        full_value=full,
        value=here,
        change=by,
        change_ci_low=None if by is None else by - 0.05,
        change_ci_high=None if by is None else by + 0.05,
        p_holm=0.001,
    )
    return replace(row, **given)


def results(changes: list[OutcomeChange], *, series: tuple[str, ...] = ("snapkv",), repeats: int = 1) -> Results:
    runs = [level(1.0), *(level(b, series=s) for s in series for b in (0.5, 0.25))]
    runs += [level(1.0, n + 1) for n in range(repeats)]
    empty: dict[str, Any] = {name: [] for name in _LISTS.split()}
    empty |= {name: {} for name in ("contract", "stats", "evidence", "progress")}
    empty |= {"contract_sha256": "", "scorer_versions": []}
    return Results(group="g", generation=1, n_generations=1, runs=runs, changes=changes, **empty)


def said(*changes: OutcomeChange, **given: Any) -> list[str]:
    return outcome_sentences(results(list(changes), **given), 0.05)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (change(0.25, Measure.TOKENS, 10, 14), "With 25% of the cache kept, answers grow 1.40 x [1.35, 1.45]."),
        (change(0.25, Measure.TOKENS, 10, 7), "With 25% of the cache kept, answers shrink to 0.70 x [0.65, 0.75]."),
        (
            change(0.25, Measure.CUT_OFF, 0.02, 0.12),
            "With 25% of the cache kept, 12% of the answers are cut off at their length, 2% at full cache.",
        ),
        (
            change(0.5, Measure.EMPTY, 0.0, 0.2),
            "With 50% of the cache kept, 20% of the answers are empty, 0% at full cache.",
        ),
        (
            change(0.5, Measure.REPETITION, 0.0, 0.2),
            "With 50% of the cache kept, 20% of the answers repeat themselves, 0% at full cache.",
        ),
        (
            change(0.5, Measure.FORMAT_ERROR, 0.0, 0.2),
            "With 50% of the cache kept, 20% of the answers can't be read by the metric, 0% at full cache.",
        ),
        (
            change(0.25, Measure.IDENTICAL, 0.97, 0.41),
            "With 25% of the cache kept, 41% of the texts are full cache's, 97% when it was run again.",
        ),
    ],
)
def test_a_proven_change_is_said_beside_full_cache(row: OutcomeChange, sentence: str) -> None:
    assert said(row) == [sentence]


def test_the_lowest_budget_speaks_and_the_others_are_named() -> None:
    rows = [change(b, Measure.CUT_OFF, 0.02, share) for b, share in ((0.5, 0.1), (0.25, 0.3))]
    assert said(*rows) == [
        "With 25% of the cache kept (also with 50%), 30% of the answers are cut off at their length, 2% at full cache."
    ]
    opposite = change(0.5, Measure.CUT_OFF, 0.2, 0.0)
    assert "also" not in said(opposite, rows[1])[0]


def test_of_further_series_it_is_said_in_one_sentence_what_changes() -> None:
    rows = [change(0.25, Measure.TOKENS, 10, 14)]
    rows += [
        replace(change(0.25, measure, full, here), series="random")
        for measure, full, here in (
            (Measure.TOKENS, 10, 7),
            (Measure.CUT_OFF, 0.3, 0.1),
            (Measure.EMPTY, 0, 0.4),
            (Measure.IDENTICAL, 1, 0.2),
        )
    ]
    assert said(*rows, series=("snapkv", "random")) == [
        "With 25% of the cache kept, answers of SnapKV grow 1.40 x [1.35, 1.45].",
        "Proven of other series: shorter answers, fewer cut off, more empty and other texts of Random eviction.",
    ]


def test_where_texts_part_stands_with_the_share_that_is_the_same() -> None:
    same = change(0.25, Measure.IDENTICAL, 0.97, 0.41)
    start = "With 25% of the cache kept, 41% of the texts are full cache's, 97% when it was run again; half"
    for place, ending in (
        (43, "of the others part from it within 43 characters."),
        (1, "of the others part from it within 1 character."),
        (0, "of the others differ from the first character on."),
    ):
        parts = change(0.25, Measure.DIVERGENCE, 120, place, change=None, p_holm=None)
        assert said(same, parts) == [f"{start} {ending}"]


@pytest.mark.parametrize("p_holm", [0.05, 0.3, None])
def test_nothing_is_said_of_what_is_not_proven(p_holm: float | None) -> None:
    assert said(change(0.25, Measure.TOKENS, 10, 14, p_holm=p_holm)) == []


def test_nothing_is_said_within_the_noise_of_the_control() -> None:
    noisy = change(1.0, Measure.TOKENS, 10, 13.8, p_holm=None)
    assert said(change(0.25, Measure.TOKENS, 10, 14), noisy) == []
    calm = change(1.0, Measure.TOKENS, 10, 10.1, p_holm=None)
    assert len(said(change(0.25, Measure.TOKENS, 10, 14), calm)) == 1


def test_texts_without_a_repeat_beside_them_are_not_said_or_shown() -> None:
    rows = [
        change(0.25, Measure.IDENTICAL, None, 0.41, p_holm=None),
        change(0.25, Measure.DIVERGENCE, None, 43, p_holm=None),
        change(0.25, Measure.TOKENS, 10, 14),
    ]
    assert [line for line in said(*rows) if "text" in line] == []
    bare = outcome_table(results(rows, repeats=0), 0.05)
    assert not any("text" in name.lower() for name in bare.head)
    assert "kv.control_repeats" in bare.note
    seedless = outcome_table(results(rows), 0.05)
    assert not any("text" in name.lower() for name in seedless.head)
    assert "keeps to its seeds" in seedless.note


def test_nothing_is_said_where_prompts_were_read_short() -> None:
    detail = json.dumps({"prompts": {"n": 100, "n_short": 60, "sent": 100, "read": 50}})
    row: dict[str, Any] = {field.name: None for field in fields(Verdict)} | {"zone_json": detail, "bin_idx": -1}
    short = replace(results([change(0.25, Measure.TOKENS, 10, 14)]), verdicts=[Verdict(**row)])
    assert short.prompts.are_short
    assert outcome_sentences(short, 0.05) == []


def test_the_table_has_every_level_and_the_repeat_and_stars_what_is_proven() -> None:
    rows = [
        change(0.25, Measure.TOKENS, 10, 14),
        change(0.25, Measure.CUT_OFF, 0.02, 0.12),
        change(0.25, Measure.EMPTY, 0.0, 0.0, p_holm=None),
        change(0.25, Measure.IDENTICAL, 0.97, 0.41),
        change(0.25, Measure.DIVERGENCE, 120, 43, change=None, change_ci_low=20, change_ci_high=61, p_holm=None),
        change(1.0, Measure.TOKENS, 10, 10.1, p_holm=None),
        change(1.0, Measure.CUT_OFF, 0.02, 0.03, p_holm=None),
        change(1.0, Measure.IDENTICAL, None, 0.97, p_holm=None),
        change(1.0, Measure.DIVERGENCE, None, 120, p_holm=None),
    ]
    table = outcome_table(results(rows), 0.05)
    cells = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert [row["Level"] for row in cells] == ["snapkv 0.25", "full cache (A/A 1)"]
    assert cells[0]["Tokens, full → here"] == "10.0 → 14.0"
    assert cells[0]["Ratio [95% CI]"] == "1.40 x [1.35, 1.45] *"
    assert cells[0]["Cut off, full → here [95% CI]"] == "2% → 12% [+5, +15] *"
    assert (cells[0]["Same text as full"], cells[0]["Texts part at character"]) == (
        "41% (A/A 97%)",
        "43 [20, 61] (A/A 120)",
    )
    assert (cells[1]["Same text as full"], cells[1]["Texts part at character"]) == ("97%", "120")
    assert "Never seen: empty." in table.note
    assert not any(name.startswith("Empty") for name in table.head)


def test_without_any_change_there_is_no_table() -> None:
    assert outcome_table(results([]), 0.05).rows == ()


def test_tool_calls_have_a_table_of_what_is_wrong_first_and_no_columns_in_the_other() -> None:
    shares = {Measure.CALL_UNREADABLE: (0.0, 0.0), Measure.CALL_SCHEMA: (0.02, 0.1), Measure.CALL_NAME: (0.08, 0.2),
              Measure.CALL_ARGUMENTS: (0.1, 0.3)}  # fmt: skip
    rows = [change(b, m, at_full, here) for b in (0.5, 0.25) for m, (at_full, here) in shares.items()]
    table = call_table(results(rows), 0.05)
    assert table.head[2:] == (
        "All right", "Calls unreadable", "Calls unfit for their tool", "Wrong or no function", "Wrong arguments"
    )  # fmt: skip
    assert table.rows[0][1:4] == ("100", "80% → 40%", "0% → 0%")
    assert table.rows[0][6] == "10% → 30% [+15, +25] *"
    assert table.folded
    assert "Wrong or no function" not in " ".join(outcome_table(results(rows), 0.05).head)
    assert call_table(results([change(0.5, Measure.EMPTY, 0, 0.1)]), 0.05).rows == ()
    assert said(*rows)[-1] == (
        "With 25% of the cache kept (also with 50%), 30% of the answers call the right function with wrong arguments, "
        "10% at full cache."
    )
