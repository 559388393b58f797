"""What a bench says of its figures: one number to a name, and beside it whatever is known against it."""

import math
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.bench.bench_analysis import bench_stages, missed
from analyzer.bench.figures.points import Point, points
from analyzer.bench.figures.pooled import estimate
from analyzer.bench.figures.quantiles import summarise
from analyzer.bench.figures.saturation import LoadZone
from analyzer.bench.figures.spread import Estimate
from analyzer.bench.figures.stage_results import result_of
from analyzer.bench.read.length_check import LengthCheck, sentence
from analyzer.bench.read.stage_facts import stages
from analyzer.bench.report.bench_charts import frontier, log_ticks
from analyzer.bench.report.bench_verdict import kept_words, verdict
from analyzer.charts.style import PAGE, spec_of
from tests.analyzer.bench_rows import GROUP, Load, Sent, group, steady, write_bench

ALPHA = 0.05
seconds = st.floats(1e-4, 1e3)


def measured(tmp_path: Path, *loads: Load) -> list[Point]:
    with closing(write_bench(tmp_path / "k.sqlite", loads)) as conn:
        return points([result_of(conn, stage, ALPHA) for stage in stages(conn, GROUP)], ALPHA)


# ---- one name, one number


@given(st.lists(st.lists(seconds, min_size=1, max_size=40), min_size=1, max_size=5))
def test_a_figure_is_of_all_repeats_together_and_the_worst_is_never_below_p99(repeats: list[list[float]]) -> None:
    arrays = [np.array(values) for values in repeats]
    pooled = summarise(np.concatenate(arrays))
    found = {stat: estimate(stat, arrays, ALPHA) for stat in ("mean", "p50", "p99", "max")}
    assert {stat: one.value for stat, one in found.items()} == {stat: pooled.stat(stat) for stat in found}
    assert found["p99"].value <= found["max"].value
    for one in found.values():
        assert math.isnan(one.low) or 0 < one.low <= one.value <= one.high
        assert one.low != one.high


def test_with_failures_is_equal_to_the_plain_figure_where_nothing_failed(tmp_path: Path) -> None:
    loads = [
        Load([Sent(i * 100, ttft_ms=90 + i * (repeat + 1)) for i in range(19)], repeat=repeat) for repeat in range(3)
    ]
    (point,) = measured(tmp_path, *loads)
    assert point.n_failed == 0
    assert point.censored == {name: point.figures[name].value for name in point.censored}


def test_the_objective_saw_the_very_percentile_that_the_tables_show(tmp_path: Path) -> None:
    loads = [
        Load([Sent(i * 100, ttft_ms=90 + i) for i in range(19)], repeat=r, slo={"ttft_p99_ms": 80}) for r in range(3)
    ]
    (point,) = measured(tmp_path, *loads)
    assert point.findings[0].value_s == point.figures["ttft_p99_s"].value


def test_too_few_requests_to_tell_a_percentile_from_both_sides_give_it_no_interval(tmp_path: Path) -> None:
    few, many = (steady(n, gap_ms=10) for n in (300, 400))
    for sent in (few, many):
        for i, one in enumerate(sent):
            one.ttft_ms = 100 + (i * 37) % 401
    (point, other) = measured(tmp_path, Load(few), Load(many, label="rate 11/s", rate=11))
    assert math.isnan(point.figures["ttft_p99_s"].high)
    assert other.figures["ttft_p99_s"].high >= other.figures["ttft_p99_s"].value


# ---- charts stand whatever the interval


@pytest.mark.parametrize("low", [-1.0, 0.0, math.nan, -math.inf])
def test_an_interval_that_leaves_a_logarithmic_axis_empties_no_chart(tmp_path: Path, low: float) -> None:
    (point,) = measured(tmp_path, Load(steady(30)))
    point.figures["ttft_p99_s"] = Estimate(0.1, low, math.inf, "over repeats")
    point.figures["output_tokens_per_s"] = Estimate(100.0, low, math.inf, "over repeats")
    spec = spec_of(frontier([point], PAGE), PAGE, None)
    (rows,) = spec["datasets"].values()
    assert 0 < rows[0]["ms_low"] <= rows[0]["ms"] <= rows[0]["ms_high"] < math.inf
    assert 0 <= rows[0]["out_low"] <= rows[0]["out"] <= rows[0]["out_high"] < math.inf


@given(st.floats(1e-3, 1e6), st.floats(1.5, 1e6))
def test_a_logarithmic_axis_has_labels_wherever_it_lies(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 8
    assert all(low <= tick <= low * factor for tick in ticks)


# ---- lengths asked and got


def test_a_load_of_shorter_prompts_and_replies_than_asked_is_called_so(tmp_path: Path) -> None:
    cut = [Sent(i * 100, input_got=10, tokens=2, output_asked=8) for i in range(20)]
    answer = bench_stages(group(tmp_path, Load(cut)))
    words = "prompts were 20% of the length asked for (10 tokens instead of 50), replies 25% (2 instead of 8)"
    assert words in answer["verdict"][1].replace("Prompts", "prompts")
    assert "| 50 | 10 | 20% | 8 | 2 | 25% |" in Path(answer["report_md"]).read_text(encoding="utf-8")
    replies = answer["points"][0]["replies"]
    assert (replies["input_tokens"]["share"], replies["output_tokens"]["share"]) == (0.2, 0.25)


@pytest.mark.parametrize(
    ("got", "estimated", "said"),
    [
        (1000, False, False),
        (990, False, False),  # 1%
        (97, False, True),  # below; of 100 asked
        (900, True, False),  # an estimate may be off by a tenth
        (500, True, True),
    ],
)
def test_lengths_are_off_beyond_what_counting_allows(got: int, estimated: bool, said: bool) -> None:
    asked = 1000 if got > 100 else 10_000
    found = LengthCheck(10, asked * 10, got * 10, 0, 0, 0, estimated)
    assert (sentence(found) is not None) is said


def test_a_few_prompts_that_the_server_cut_are_said_where_the_mean_hides_them(tmp_path: Path) -> None:
    few = [Sent(i * 100, input_got=35 if i % 50 == 0 else 50) for i in range(100)]
    (point,) = measured(tmp_path, Load(few))
    assert sentence(point.lengths) == "2 of 100 prompts were read shorter than they were sent"


def test_one_count_for_prompts_of_different_lengths_is_a_cut_however_they_were_counted(tmp_path: Path) -> None:
    sent = [Sent(i * 100, input_asked=40 + i, input_got=50) for i in range(20)]
    (point,) = measured(tmp_path, Load(sent))
    assert sentence(point.lengths) == "the server counted 50 tokens for prompts of different lengths: it cuts them"


def test_replies_as_long_as_asked_are_no_news(tmp_path: Path) -> None:
    (point,) = measured(tmp_path, Load(steady(20)))
    assert sentence(point.lengths) is None


# ---- replies without a token, and in one piece


def test_a_reply_without_a_token_has_no_latency_and_keeps_no_limit(tmp_path: Path) -> None:
    sent = [Sent(i * 100, empty=i % 2 == 0) for i in range(200)]
    (point,) = measured(tmp_path, Load(sent, slo={"ttft_p50_ms": 500, "latency_p50_ms": 500}))
    assert (point.n_answered, point.n_empty, point.n_failed) == (200, 100, 0)
    assert len([v for v in point.results[0].values["latency"] if not math.isnan(v)]) == 100
    assert [finding.n_beyond for finding in point.findings] == [100, 100]
    assert {finding.verdict for finding in point.findings} == {"cannot tell"}
    assert point.censored["ttft_p99_s"] == math.inf
    assert point.attainment == pytest.approx(0.5)
    assert "100 of 200 replies had no token" in verdict([point])[1]


def test_a_server_of_empty_replies_misses_its_objective(tmp_path: Path) -> None:
    (point,) = measured(tmp_path, Load([Sent(i * 100, empty=True) for i in range(20)], slo={"ttft_p50_ms": 500}))
    assert point.findings[0].verdict == "missed"
    assert [row["objective"] for row in missed([point])] == ["ttft_p50_ms"]


def test_a_reply_in_one_piece_has_no_tpot_and_proves_no_objective_on_it(tmp_path: Path) -> None:
    sent = [Sent(i * 100, one_piece=True) for i in range(100)]
    (point,) = measured(tmp_path, Load(sent, slo={"tpot_p50_ms": 5, "itl_p99_ms": 5}))
    assert math.isnan(point.figures["tpot_p50_s"].value)
    assert math.isnan(point.figures["itl_p50_s"].value)
    assert {finding.verdict for finding in point.findings} == {"cannot tell"}
    what, trust = verdict([point])
    assert "TPOT p50 <= 5 ms: cannot tell, no reply shows its TPOT" in what
    assert "100 of 100 replies came in one piece" in trust


def test_an_objective_on_a_share_of_the_replies_says_so_and_is_met_only_if_the_others_could_not_break_it(
    tmp_path: Path,
) -> None:
    sent = [Sent(i * 100, one_piece=i % 4 == 0) for i in range(400)]
    few = [Sent(i * 100, one_piece=i % 100 == 0) for i in range(400)]
    (half, most) = measured(tmp_path, Load(sent, slo={"tpot_p90_ms": 20}),
                            Load(few, label="rate 11/s", rate=11, slo={"tpot_p90_ms": 20}))  # fmt: skip
    assert (half.findings[0].verdict, half.findings[0].n_unknown) == ("cannot tell", 100)
    assert most.findings[0].verdict == "met"
    assert "(10 ms seen of 396; 4 replies show no TPOT)" in verdict([most])[0]


def test_chunks_of_one_read_are_one_arrival_in_the_gaps(tmp_path: Path) -> None:
    (point,) = measured(tmp_path, Load([Sent(i * 100, one_piece=i < 10) for i in range(20)]))
    assert point.figures["itl_p50_s"].value == pytest.approx(0.01)


# ---- this client's own error


@pytest.mark.parametrize(
    ("error_ms", "bound"),
    [
        (4.9, ()),
        (5.1, ("ttft_p50_s", "ttft_p99_s")),  # of 100 ms; TPOT's error is a tenth of it
        (6.0, ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s")),
    ],
)
def test_client_bound_is_said_of_figures_that_the_clients_error_exceeds_by_a_twentieth(
    tmp_path: Path, error_ms: float, bound: tuple[str, ...]
) -> None:
    (point,) = measured(tmp_path, Load(steady(30, ttft_ms=100, itl_ms=11, tokens=11), error_ms=error_ms))
    assert point.client_bound == bound
    assert point.client.verdict == ("CLIENT-BOUND" if bound else "client-clean")
    assert verdict([point])[1].count("CLIENT-BOUND") == bool(bound)


def test_what_sending_late_added_is_this_clients_error_of_times_from_the_intended_start(tmp_path: Path) -> None:
    sent = [Sent(i * 100, ttft_ms=100, late_ms=50 if i == 15 else 0) for i in range(30)]
    (point,) = measured(tmp_path, Load(sent, error_ms=1))
    added = point.figures["ttft_p99_s"].value - point.figures["ttft_sent_p99_s"].value
    assert added > 0.03
    assert point.client_error_s("ttft_p99_s") == pytest.approx(0.001 + added)
    assert point.client_error_s("ttft_p50_s") == point.client_error_s("ttft_sent_p99_s") == pytest.approx(0.001)
    assert point.client_bound == ("ttft_p99_s", "latency_p99_s")


def test_no_chart_and_no_banner_carries_client_bound(tmp_path: Path) -> None:
    answer = bench_stages(group(tmp_path, Load(steady(30), error_ms=30), charts=True))
    page = Path(answer["report_html"]).read_text(encoding="utf-8")
    assert 'class="alarm"' not in page
    assert "CLIENT-BOUND" not in (tmp_path / f"runs/{GROUP}/plots/bench_frontier.svg").read_text(encoding="utf-8")


# ---- prefix cache


def test_the_same_counters_are_known_to_a_sweep_and_to_a_bench(tmp_path: Path) -> None:
    before, after = ({"sglang:cached_tokens_total": n * 16, "sglang:prompt_tokens_total": n * 20} for n in (1, 2))
    (point,) = measured(tmp_path, Load(steady(20, cached=None), before=before, after=after))
    assert (point.cache, point.results[0].cache.source, point.results[0].cache.share) == ("mixed", "counters", 0.8)


def test_a_cache_that_nobody_counts_is_unknown_and_says_what_follows(tmp_path: Path) -> None:
    (point,) = measured(tmp_path, Load(steady(20, cached=None)))
    assert (
        "prefix cache unknown (WARNING: the server does not count it; every prompt began with text of its own)"
        in (verdict([point])[1])
    )


# ---- a missed objective


def test_a_miss_counts_where_the_load_was_asked_for_and_of_a_search_at_its_lowest(tmp_path: Path) -> None:
    def load(rate: float, ttft_ms: float) -> Load:
        return Load(
            steady(400, gap_ms=10, ttft_ms=ttft_ms), label=f"rate {rate:g}/s", rate=rate, slo={"ttft_p50_ms": 500}
        )

    found = measured(tmp_path, load(1, 100), load(2, 900))
    assert [row["load"] for row in missed(found)] == ["rate 2/s"]
    for point in found:
        for result in point.results:
            object.__setattr__(result.stage, "purpose", "search")
    assert missed(found) == []
    assert [row["load"] for row in missed(found[1:])] == ["rate 2/s"]


def test_another_objective_is_asked_of_what_is_stored(tmp_path: Path) -> None:
    settings = group(tmp_path, Load(steady(400, gap_ms=10), slo={"ttft_p50_ms": 500}))
    assert bench_stages(settings)["missed"] == []
    answer = bench_stages(settings, asked={"ttft_p50_ms": 50})
    assert [row["objective"] for row in answer["missed"]] == ["ttft_p50_ms"]
    assert any("objectives are those of this command" in line for line in answer["lines"])


@pytest.mark.parametrize(
    ("low", "high", "seen", "says"),
    [
        (8, None, 8, "the server kept up with every rate up to 8 requests/s: no knee in range"),
        (4, None, 8, "seemed to keep up with every rate up to 8 requests/s (proven up to 4): no knee seen in range"),
        (
            None,
            None,
            8,
            "seemed to keep up with every rate up to 8 requests/s (proven for no rate): no knee seen in range",
        ),
        (4, 8, 4, "with 4 requests/s and with no higher rate (proven up to 4, proven not to keep up with 8)"),
        (None, 2, None, "the server kept up with none of these rates"),
        (None, None, None, "whether the server kept up with 2 requests/s cannot be told"),
        (None, 8, None, "whether the server kept up with 2 requests/s cannot be told (proven not to keep up with 8)"),
    ],
)
def test_a_rate_is_kept_up_with_as_far_as_it_is_proven_and_beyond_it_seen(
    low: int | None, high: int | None, seen: int | None, says: str
) -> None:
    assert says in kept_words([2, 4, 8], LoadZone(low, high, seen), "requests/s")
