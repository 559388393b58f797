"""Full cache under the levels' other restrictions: what it costs, what is left for the budget, and what it never is."""

import pytest

from analyzer.read.declared_plan import plan_of
from analyzer.report.answers import first_screen
from analyzer.report.figures_json import figures
from analyzer.report.report_tables import levels
from analyzer.results.constrained_words import constrained_sentence
from analyzer.results.results import Results, read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from analyzer.verbs.check import check
from kvt_async.contract.check_settings import Assertion
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CONSTRAINED
from tests.analyzer.conftest import Experiment

RATES = {"full": 0.9, CONSTRAINED: 0.7}


def accuracy(series: str, budget: float, bin_idx: int) -> float:
    return RATES.get(series, 0.7 if budget > 0.3 else 0.3)


def analysed(experiment: Experiment, *, constrained: bool = True) -> tuple[Results, Settings]:
    conn, settings = experiment(
        n_bins=2, n_per_bin=60, series=("snapkv/aware", "random/aware"), constrained=constrained, p_correct=accuracy
    )
    score(conn, "synthetic")
    analyze(conn, settings)
    return read_results(conn, "synthetic"), settings


def test_what_the_restrictions_cost_is_told_apart_from_what_the_budget_costs(experiment: Experiment) -> None:
    results, settings = analysed(experiment)
    alone = results.drop(results.constrained) if results.constrained else None
    assert alone is not None
    assert alone.n == 120
    assert alone.drop_mean == pytest.approx(0.2, abs=0.08)
    at = {run.kv_budget: results.against_constrained(run) for run in results.levels("snapkv/aware")}
    assert {budget: c.diff_mean for budget, c in at.items() if c} == {0.5: 0.0, 0.2: pytest.approx(0.4, abs=0.08)}
    losses = {run.kv_budget: results.drop(run) for run in results.levels("snapkv/aware")}
    for budget, c in at.items():  # the two parts are the whole, pair by pair
        drop = losses[budget]
        assert drop is not None
        assert c is not None
        assert drop.drop_mean == pytest.approx((alone.drop_mean or 0) + (c.diff_mean or 0))
    sentence = constrained_sentence(results)
    assert sentence in first_screen(results, settings).caveats
    assert sentence.startswith("The other restrictions alone cost 0.1")
    assert "against constrained full the budget costs 0.00 [" in sentence
    assert "at 50% and 0." in sentence


def test_it_is_neither_a_series_nor_a_baseline_nor_a_check_s_budget(experiment: Experiment) -> None:
    results, settings = analysed(experiment)
    assert results.series == ["snapkv/aware", "random/aware"]
    assert {verdict.series for verdict in results.verdicts} == {"snapkv/aware", "random/aware"}
    assert {(c.series_a, c.series_b) for c in results.comparisons} == {("snapkv/aware", "random/aware")}
    assert results.full is not None
    assert (results.full.is_full, results.unit) == (True, "fraction")
    plain, _ = analysed(experiment, constrained=False)
    for one, other in zip(results.verdicts, plain.verdicts, strict=True):  # nothing of the verdict hangs on it
        assert (one.verdict, one.safe_budget, one.zone_low) == (other.verdict, other.safe_budget, other.zone_low)
    assertions = [Assertion(name="gains", kind="flag_gains"), Assertion(name="low", kind="min_accuracy", value=0.8,
                  budget=1.0)]  # fmt: skip
    held = check(results, settings.model_copy(update={"check": assertions}))
    assert [result.passed for result in held] == [True, True]


def test_tables_and_figures_show_it_beside_the_levels(experiment: Experiment) -> None:
    results, settings = analysed(experiment)
    shown = levels(results)
    column = shown.head.index("Loss against constrained full")
    by_level = {row[:2]: row[column] for row in shown.rows}
    assert by_level["snapkv/aware", "0.5"].startswith("0.00 [")
    assert by_level[CONSTRAINED, "full cache"] == "–"
    told = {(level["series"], level["kv_budget"]): level for level in figures(results, settings)["levels"]}
    assert told[CONSTRAINED, 1.0]["is_constrained"]
    assert told[CONSTRAINED, 1.0]["evidence"] == "full"
    assert told["snapkv/aware", 0.2]["against_constrained"]["drop_mean"] == pytest.approx(0.4, abs=0.08)
    without, same = analysed(experiment, constrained=False)
    assert "Loss against constrained full" not in levels(without).head
    assert all(level["against_constrained"] is None for level in figures(without, same)["levels"])
    assert constrained_sentence(without) == ""


def test_the_plan_is_never_about_it(experiment: Experiment) -> None:
    conn, _ = experiment(n_bins=1, n_per_bin=5, constrained=True)
    assert plan_of(conn, "synthetic", 1).series == "snapkv/aware"
