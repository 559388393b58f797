"""One name, one number: a level's failure rate is its failures over its requests, wherever it stands."""

import re

from analyzer.report.build import markdown
from analyzer.report.report_tables import error_budget, levels, run_bins
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from analyzer.verbs.check import check
from kvt_async.contract.cache_state import cache_state
from tests.analyzer.conftest import Experiment
from tests.analyzer.report_page import NOON


def test_a_failure_in_a_small_bin_counts_once_in_every_table_and_in_check(experiment: Experiment) -> None:
    """One of two short requests fails and none of eighteen long ones: 5%, not the 25% of equal bins."""

    def fails(series: str, budget: float, bin_idx: int) -> float:
        return 0.5 if budget == 0.5 and bin_idx == 0 else 0.0

    conn, settings = experiment(
        bin_sizes=(2, 18), failures=fails, seed=2, control_repeats=0,
        overrides=("check=[{name: few, kind: max_fail_rate, budget: 0.5, value: 0.1}]",),
    )  # fmt: skip
    score(conn, "synthetic")
    analyze(conn, settings)
    facts = read_results(conn, "synthetic")
    run = next(run for run in facts.runs if run.kv_budget == 0.5)
    stat = facts.stat(run)
    assert stat is not None
    assert (stat.n_failures, stat.n, stat.fail_rate) == (1, 20, 0.05)
    head = levels(facts).head.index("Failed")
    assert [row[head] for row in levels(facts).rows if row[1] == "0.5"] == ["5.0%"]
    assert [row[2] for row in error_budget(facts).rows if row[0] == "snapkv/aware 0.5"] == ["1 (5.0%)"]
    of_all = [row for row in run_bins(facts).rows if row[1] == "0.5" and row[2] == "all lengths"]
    assert of_all[0][run_bins(facts).head.index("Failure rate [95% CI]")].startswith("0.050 [")
    (result,) = check(read_results(conn, "synthetic"), settings)
    assert result.passed
    assert "highest failure rate 0.050" in result.finding
    assert re.search(r"Failure rate\*\*: .*over all finished requests", markdown(facts, settings, NOON))


def test_cold_and_warm_mean_one_thing() -> None:
    states = [cache_state(share) for share in (None, 0.0, 0.05, 0.051, 0.5, 0.89, 0.9, 1.0)]
    assert states == ["unknown", "cold", "cold", "mixed", "mixed", "mixed", "warm", "warm"]
