"""Stages with known times -> the figures, verdicts and files of a bench."""

import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyzer.bench.bench_analysis import bench_stages
from analyzer.bench.comparison import compare
from analyzer.bench.figures.points import Point, points
from analyzer.bench.figures.saturation import highest_within, knee
from analyzer.bench.figures.stage_results import result_of
from analyzer.bench.read.request_metrics import with_metrics
from analyzer.bench.read.stage_facts import requests, stages
from analyzer.bench.report.as_tools import FORMULAS, as_tool
from analyzer.store.artifacts import NAME as MADE
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.schema import connect_for_reading
from tests.analyzer.bench_rows import GROUP, Load, Sent, group, steady, write_bench

ALPHA = 0.05


def measured(tmp_path: Path, *loads: Load) -> list[Point]:
    with closing(write_bench(tmp_path / "k.sqlite", loads)) as conn:
        return points([result_of(conn, stage, ALPHA) for stage in stages(conn, GROUP)], ALPHA)


def test_every_metric_is_what_the_marks_say(tmp_path: Path) -> None:
    (point,) = measured(tmp_path, Load(steady(50, ttft_ms=200, itl_ms=20, tokens=11)))
    seen = {name: point.figures[f"{name}_p50_s"].value for name in ("ttfb", "ttft", "tpot", "itl", "latency")}
    assert seen == pytest.approx({"ttfb": 0.2, "ttft": 0.2, "tpot": 0.02, "itl": 0.02, "latency": 0.4})
    # one request every 100 ms completes 11 tokens, and each takes as long as the one before
    assert point.figures["requests_per_s"].value == pytest.approx(10)
    assert point.figures["output_tokens_per_s"].value == pytest.approx(110)
    assert point.figures["input_tokens_per_s"].value == pytest.approx(500)
    assert "itl_token_p50_s" not in point.figures


def test_an_open_loop_counts_from_the_intended_start_and_a_closed_one_from_the_first_byte(tmp_path: Path) -> None:
    """A server that stalls holds later requests up: the schedule's clock runs on, the connection's doesn't."""
    late = [Sent(i * 100, ttft_ms=50, late_ms=2000 if 20 <= i < 40 else 0) for i in range(60)]
    open_loop, closed = measured(tmp_path, Load(late), Load(late, label="concurrency 1", rate=None, concurrency=1))
    assert open_loop.figures["ttft_p99_s"].value == pytest.approx(2.05)
    assert open_loop.figures["ttft_sent_p99_s"].value == pytest.approx(0.05)
    assert closed.figures["ttft_p99_s"].value == pytest.approx(0.05)
    (audit,) = [r.audit for r in open_loop.results]
    assert audit is not None
    assert audit.send_lag_s.maximum == pytest.approx(2.0)
    assert closed.results[0].audit is None


def test_failures_are_beyond_every_latency_in_the_second_percentiles_and_miss_every_objective(tmp_path: Path) -> None:
    sent = [Sent(i * 100, failed=i % 10 == 0) for i in range(100)]
    (point,) = measured(tmp_path, Load(sent, slo={"ttft_p95_ms": 500}))
    assert (point.n_started, point.n_failed) == (100, 10)
    assert point.figures["ttft_p99_s"].value == pytest.approx(0.1)
    assert point.censored["ttft_p99_s"] == math.inf
    assert point.censored["ttft_p50_s"] == pytest.approx(0.1)
    assert point.attainment == pytest.approx(0.9)
    assert point.findings[0].n_beyond == 10
    assert point.results[0].errors == {"HttpError": 10}


def test_itl_is_per_chunk_and_per_token_where_a_chunk_carries_several(tmp_path: Path) -> None:
    (point,) = measured(tmp_path, Load(steady(20, tokens=13, chunk_tokens=4, itl_ms=40)))
    assert point.figures["itl_p50_s"].value == pytest.approx(0.04)
    assert point.figures["itl_token_mean_s"].value == pytest.approx(0.01)
    assert point.figures["tpot_p50_s"].value == pytest.approx(0.01)


def test_warm_up_requests_have_no_latency_and_load_the_server_all_the_same(tmp_path: Path) -> None:
    sent = [Sent(-300 + i * 100, ttft_ms=900, phase="warm_up") for i in range(3)] + steady(30)
    (point,) = measured(tmp_path, Load(sent))
    assert point.n_started == 30
    assert point.figures["ttft_max_s"].value == pytest.approx(0.1)
    # the three long lives of the warm-up end beside nine others, while the server is already full with five
    assert point.figures["requests_by_share_per_s"].value > 10


def test_too_short_a_window_tells_no_rate_and_says_what_would(tmp_path: Path) -> None:
    settings = group(tmp_path, Load(steady(5)))
    answer = bench_stages(settings)
    (point,) = answer["points"]
    for name in ("requests_per_s", "output_tokens_per_s", "arrivals_per_s"):
        figure = point["figures"][name]
        assert (figure["value"], figure["low"], figure["high"], figure["n_needed"]) == (None, None, None, 100)
        assert figure["reason"] == "the window holds 3 requests, fewer than 10"
    assert "about 100 requests would tell" in answer["verdict"][0]


def closed(n: int, concurrency: int, latency_ms: float, **kind: object) -> Load:
    """Replies of one length to `n` requests, `concurrency` at a time; the first of each place is warm-up."""
    sent = [
        Sent((i // concurrency) * latency_ms, ttft_ms=latency_ms / 2, itl_ms=latency_ms / 20, tokens=11,
             phase="warm_up" if i < concurrency else "measured", **kind)  # type: ignore[arg-type]
        for i in range(n + concurrency)
    ]  # fmt: skip
    return Load(sent, label=f"concurrency {concurrency}", rate=None, concurrency=concurrency)


def test_three_rounds_of_two_places_tell_a_rate_and_of_eight_places_they_do_not(tmp_path: Path) -> None:
    (small,) = bench_stages(group(tmp_path / "small", closed(6, 2, 60.0)))["points"]
    figure = small["figures"]["requests_per_s"]
    assert figure["value"] == pytest.approx(2 / 0.060, rel=0.02)
    assert figure["low"] < figure["value"] / 1.1 < figure["value"] * 1.1 < figure["high"]  # and little is known of it
    (wide,) = bench_stages(group(tmp_path / "wide", closed(24, 8, 60.0)))["points"]
    assert (wide["figures"]["requests_per_s"]["value"], wide["figures"]["requests_per_s"]["n_needed"]) == (None, 100)


@pytest.mark.parametrize("latency_ms", [60.0, 2740.0])
@pytest.mark.parametrize("n", [64, 70, 100, 128])
def test_equal_lives_in_a_closed_loop_give_places_over_latency_whatever_falls_on_the_edges(
    tmp_path: Path, n: int, latency_ms: float
) -> None:
    (point,) = measured(tmp_path, closed(n, 16, latency_ms))
    rate, tokens = point.figures["requests_per_s"], point.figures["output_tokens_per_s"]
    assert rate.value == pytest.approx(16_000 / latency_ms, rel=0.005)
    assert tokens.value == pytest.approx(11 * rate.value, rel=0.03)
    assert 0 < rate.low < rate.value < rate.high < 1.05 * rate.value


def test_two_latencies_of_a_closed_loop_tell_nothing(tmp_path: Path) -> None:
    (point,) = measured(tmp_path, closed(32, 16, 500.0))
    found = point.figures["requests_per_s"]
    assert math.isnan(found.value)
    assert found.n_needed == 12 * 16


def test_a_rate_is_told_where_every_repeat_tells_it_for_the_others_have_more_requests_by_chance(tmp_path: Path) -> None:
    counts = (15, 7, 9)  # of a schedule with 10 requests in 10 s on average
    loads = [Load(steady(n, gap_ms=10_000 / n), repeat=i, slo={"ttft_p50_ms": 500}) for i, n in enumerate(counts)]
    (point,) = measured(tmp_path, *loads)
    assert not math.isnan(point.results[0].rates.requests.value)
    found = point.figures["requests_per_s"]
    assert math.isnan(found.value)
    assert found.reason is not None
    assert found.reason.startswith("in 2 of 3 repeats; in one of them the window holds")
    assert math.isnan(point.figures["goodput_per_s"].value)
    assert found.n_needed == 100


def test_a_killed_window_ends_with_its_last_outcome(tmp_path: Path) -> None:
    (point,) = measured(tmp_path, Load([*steady(40), *(Sent(4000 + i * 100, pending=True) for i in range(10))],
                                       killed=True))  # fmt: skip
    assert point.partial
    assert point.results[0].stage.n_owed == 10
    assert point.results[0].client.verdict == "unknown"
    assert point.figures["requests_per_s"].value == pytest.approx(10)


@pytest.mark.parametrize(
    ("cached", "page", "label", "source"),
    [
        (0, {}, "cold", "usage"),
        (45, {}, "warm", "usage"),
        (5, {}, "mixed", "usage"),
        (None, {}, "unknown", "none"),
        (None, {"vllm:prefix_cache_hits_total": 90, "vllm:prefix_cache_queries_total": 100}, "warm", "counters"),
        (None, {"vllm:prefix_cache_hits_total": 0, "vllm:prefix_cache_queries_total": 100}, "cold", "counters"),
    ],
)
def test_the_prefix_cache_is_labelled_by_what_the_server_tells(
    tmp_path: Path, cached: int | None, page: dict[str, Any], label: str, source: str
) -> None:
    before = dict.fromkeys(page, 0)
    (point,) = measured(tmp_path, Load(steady(20, cached=cached), before=before, after=page))
    assert (point.cache, point.results[0].cache.source) == (label, source)


def test_ttft_falls_into_queue_prefill_rest_and_what_lies_beyond_the_server(tmp_path: Path) -> None:
    def page(n: int, ttft: float, queue: float, prefill: float) -> dict[str, Any]:
        hist = {
            "vllm:time_to_first_token_seconds": ttft, "vllm:request_queue_time_seconds": queue,
            "vllm:request_prefill_time_seconds": prefill,
        }  # fmt: skip
        return {k: {"count": n, "sum": n * v, "buckets": {"1.0": n, "+Inf": n}} for k, v in hist.items()}

    after = {
        name: {"count": 25, "sum": 45.0 + extra["sum"], "buckets": {"1.0": 25, "+Inf": 25}}
        for name, extra in page(20, 0.09, 0.03, 0.05).items()
    }
    (point,) = measured(tmp_path, Load(steady(20, ttft_ms=100), before=page(5, 9.0, 9.0, 9.0), after=after))
    parts = point.results[0].breakdown
    assert parts is not None
    seen = (parts.client, parts.server, parts.queue, parts.prefill, parts.other, parts.beyond)
    assert seen == pytest.approx((0.1, 0.09, 0.03, 0.05, 0.01, 0.01))


def test_the_knee_of_a_ladder_is_where_completions_fall_behind_arrivals(tmp_path: Path) -> None:
    def at(rate: float, ceiling: float) -> Load:
        gap, n = 1000 / rate, int(rate * 20)
        # beyond the ceiling each request ends later by what the queue has grown
        grows = max(0.0, 1000 / ceiling - gap)
        sent = [Sent(i * gap, ttft_ms=50 + i * grows, tokens=2) for i in range(n)]
        return Load(sent, label=f"rate {rate:g}/s", rate=rate)

    found = measured(tmp_path, *(at(rate, 12.0) for rate in (4, 8, 16, 32)))
    zone = knee(found)
    assert zone is not None
    assert (zone.low, zone.high, zone.seen) == (8, 16, 8)


def test_output_that_falls_again_beyond_the_plateau_is_not_short_of_it(tmp_path: Path) -> None:
    def at(n: int, gap_ms: float) -> Load:
        return Load(steady(60, gap_ms=gap_ms), label=f"concurrency {n}", rate=None, concurrency=n)

    zone = knee(measured(tmp_path, at(1, 100), at(2, 50), at(4, 200)))
    assert zone is not None
    assert (zone.low, zone.seen) == (1, 2)


def test_the_highest_rate_within_the_objectives_is_proven_or_open(tmp_path: Path) -> None:
    def at(rate: float, slow: int, n: int) -> Load:
        sent = [Sent(i * 10, ttft_ms=900 if i < slow else 100) for i in range(n)]
        return Load(sent, label=f"rate {rate:g}/s", rate=rate, slo={"ttft_p99_ms": 500})

    zone = highest_within(measured(tmp_path, at(1, 0, 400), at(2, 0, 200), at(4, 1, 400), at(8, 40, 400)))
    assert zone is not None
    assert (zone.low, zone.high, zone.seen) == (1, 8, 4)  # at 2, 200 requests prove nothing


def test_three_repeats_speak_for_how_runs_differ(tmp_path: Path) -> None:
    """Student's interval of the logarithms, 2 degrees of freedom, about the figure of all requests together."""
    loads = [Load(steady(30, ttft_ms=ttft), repeat=i) for i, ttft in enumerate((90, 100, 110))]
    (point,) = measured(tmp_path, *loads)
    found = point.figures["ttft_p50_s"]
    assert found.value == pytest.approx(0.1)
    assert found.method == "over repeats"
    half = 4.30265 * np.std(np.log([90, 100, 110]), ddof=1) / 3**0.5
    assert (found.low, found.high) == pytest.approx((0.1 * math.exp(-half), 0.1 * math.exp(half)), rel=1e-4)
    assert point.repeats["ttft_p50_s"] == pytest.approx((0.09, 0.1, 0.11))


def test_each_tools_formulas_end_at_their_own_marks(tmp_path: Path) -> None:
    with closing(write_bench(tmp_path / "k.sqlite", [Load(steady(20, ttft_ms=100, itl_ms=10, tokens=11))])) as conn:
        frame = with_metrics(requests(conn, "run0"))
    seen = {}
    for tool in FORMULAS:
        told = as_tool(tool, frame)
        assert told.requests_per_s == pytest.approx(20 / told.duration_s)
        assert told.output_tokens_per_s == pytest.approx(220 / told.duration_s)
        seen[tool] = [round(s.mean * 1000, 3) for s in (told.ttft, told.tpot, told.itl, told.latency)]
    # posted 0.5 ms before the first byte; finish +1, usage +2, [DONE] +3, end +4 ms after the last text
    assert seen == {
        "vllm": [100.5, 10.1, round((10 * 10 + 1) / 11, 3), 201.5],
        "aiperf": [100.5, 10.0, 10.0, 200.5],
        "guidellm": [100.0, round(200 / 11, 3), 10.0, 204.0],
        "sglang": [100.5, 10.3, 10.0, 203.5],
        "evalscope": [100.5, 10.2, 10.0, 202.5],
    }


def test_a_rate_that_was_not_sent_is_this_clients_failing_however_calm_its_loop(tmp_path: Path) -> None:
    (late,) = measured(tmp_path, Load([Sent(i * 100, late_ms=i * 5) for i in range(30)]))
    assert (late.client.verdict, late.client.signal) == ("CLIENT-BOUND", "only 95.2% of the planned rate was sent")


def test_a_closed_loop_is_called_blind_to_stalls_on_screen_and_in_the_report(tmp_path: Path) -> None:
    closed = Load(steady(30), label="concurrency 4", rate=None, concurrency=4)
    answer = bench_stages(group(tmp_path, closed))
    assert any("blind to it" in line for line in answer["lines"])
    assert "A closed loop is blind to stalls" in Path(answer["report_md"]).read_text(encoding="utf-8")


def test_percentiles_with_failures_have_a_name_of_their_own_and_stand_only_where_something_failed(
    tmp_path: Path,
) -> None:
    sent = [Sent(i * 100, ttft_ms=100 + i, failed=i % 2 == 0) for i in range(60)]
    answer = bench_stages(group(tmp_path, Load(sent), Load(steady(60, gap_ms=50), label="rate 20/s", rate=20)))
    table = answer["lines"][: answer["lines"].index("")]
    (note,) = [line for line in table if "failures = inf" in line]
    assert note == "(rate 10/s, with failures = inf (30 failed): TTFT p99 inf, latency p99 inf)"
    assert next(line for line in table if line.startswith("rate 10/s")).split()[4:6] == ["130", "158"]


def test_an_unknown_tool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no formulas of 'wrk'"):
        bench_stages(group(tmp_path, Load(steady(12))), as_tool="wrk")


def test_the_table_fits_100_columns_and_the_verdict_says_what_limits_it(tmp_path: Path) -> None:
    name = "a_policy_with_a_long_name/question_agnostic 0.05"
    loads = [
        Load(steady(400, gap_ms=25, cached=45), label="rate 40/s", rate=40, level=name, slo={"ttft_p99_ms": 500},
             error_ms=7),
        Load(steady(400, gap_ms=12.5), label="rate 80/s", rate=80, level=name, slo={"ttft_p99_ms": 500}),
    ]  # fmt: skip
    answer = bench_stages(group(tmp_path, *loads))
    table = answer["lines"][: answer["lines"].index("")]
    assert max(map(len, table)) <= 100
    what, trust = answer["verdict"]
    assert "no knee in range" in what
    assert "proven up to 80 requests/s" in what
    assert "CLIENT-BOUND: TTFT p50, TTFT p99, TPOT p50 and TPOT p99 at rate 40/s" in trust
    assert "cold/warm" in trust
    json.dumps(answer, allow_nan=False)  # --json is JSON, whatever was infinite


def test_reports_hold_verdict_tables_and_pictures_and_the_same_facts_give_the_same_bytes(tmp_path: Path) -> None:
    settings = group(tmp_path, Load([Sent(i * 100, failed=i == 7) for i in range(30)]),
                     Load(steady(30, gap_ms=50), label="rate 20/s", rate=20), charts=True)  # fmt: skip
    paths = bench_stages(settings)
    md, html = Path(paths["report_md"]), Path(paths["report_html"])
    text = md.read_text(encoding="utf-8")
    for line in paths["verdict"]:
        assert line in text
    assert "HttpError" in text
    for name in ("bench_frontier", "bench_latency_cdf", "bench_over_time", "bench_ttft_parts"):
        assert f"plots/{name}.png" in text
        assert (md.parent / f"plots/{name}.png").stat().st_size > 1000
    before = [line for file in (md, html) for line in file.read_text(encoding="utf-8").splitlines()]
    stood = [file.stat().st_mtime_ns for file in (md, html)]
    bench_stages(settings)
    assert [file.stat().st_mtime_ns for file in (md, html)] == stood, "made from the same: not drawn again"
    (md.parent / MADE).unlink()
    bench_stages(settings)
    after = [line for file in (md, html) for line in file.read_text(encoding="utf-8").splitlines()]
    changed = [b for b, a in zip(before, after, strict=True) if b != a]
    assert all("Generated at" in line for line in changed)


def test_nothing_benched_is_said(tmp_path: Path) -> None:
    settings = group(tmp_path)
    with pytest.raises(MissingPrerequisiteError, match="no runs here"):
        bench_stages(settings)


def test_derived_rows_are_replaced_not_added(tmp_path: Path) -> None:
    settings = group(tmp_path, Load(steady(30)))
    for _ in range(2):
        bench_stages(settings)
    conn = connect_for_reading(tmp_path / f"runs/{GROUP}/kv_transition.sqlite")
    with closing(conn):
        assert conn.execute("SELECT count(*) FROM bench_points").fetchall() == [(1,)]
        assert conn.execute("SELECT p50_s FROM bench_stats WHERE metric = 'ttft'").fetchall() == [(pytest.approx(0.1),)]


@pytest.mark.parametrize(("ttft", "verdict"), [(100, "no detectable difference"), (130, "these two runs differ")])
def test_two_groups_are_paired_where_their_schedules_match(tmp_path: Path, ttft: float, verdict: str) -> None:
    for name, base in (("a", 100.0), ("b", ttft)):
        (tmp_path / name).mkdir()
        jitter = [6 * ((i + (name == "b")) % 2) for i in range(120)]
        sent = [Sent(i * 100, ttft_ms=base + jitter[i], tokens=1) for i in range(120)]
        write_bench(tmp_path / name / "kv_transition.sqlite", [Load(sent)]).close()
    found = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    ttft_row = next(d for d in found["differences"] if d["figure"] == "TTFT p50")
    assert (ttft_row["verdict"], ttft_row["n_pairs"]) == (verdict, 120)
    assert found["compared"] == []


def test_groups_without_a_common_load_are_refused(tmp_path: Path) -> None:
    for name, label in (("a", "rate 1/s"), ("b", "rate 2/s")):
        (tmp_path / name).mkdir()
        write_bench(tmp_path / name / "kv_transition.sqlite", [Load(steady(12), label=label)]).close()
    with pytest.raises(MissingPrerequisiteError, match="no load in common"):
        compare(str(tmp_path / "a"), str(tmp_path / "b"))


def test_better_and_worse_need_three_repeats_on_both_sides(tmp_path: Path) -> None:
    """Repeats that differ by 5% from run to run; B is twice as slow."""
    for name, slow, n in (("a", 1.0, 4), ("b", 2.0, 4), ("c", 2.0, 2)):
        (tmp_path / name).mkdir()
        loads = [
            Load([Sent(i * 100, ttft_ms=slow * (100 + 5 * repeat + i % 7), itl_ms=10 + repeat % 2) for i in range(30)],
                 repeat=repeat)
            for repeat in range(n)
        ]  # fmt: skip
        write_bench(tmp_path / name / "kv_transition.sqlite", loads).close()

    def verdict(a: str, b: str) -> str:
        found = compare(str(tmp_path / a), str(tmp_path / b))
        return next(str(d["verdict"]) for d in found["differences"] if d["figure"] == "TTFT p50")

    assert verdict("a", "b") == "B is worse"
    assert verdict("b", "a") == "B is better"
    assert verdict("a", "a") == "no detectable difference"
    assert verdict("a", "c") in ("these two runs differ", "cannot tell")


def test_a_difference_that_the_clients_could_have_made_is_not_claimed(tmp_path: Path) -> None:
    for name, slow, error_ms in (("a", 1.0, 20), ("b", 2.0, 20), ("c", 2.0, 90)):
        (tmp_path / name).mkdir()
        loads = [
            Load([Sent(i * 100, ttft_ms=slow * (100 + 3 * r + i % 7)) for i in range(30)], repeat=r, error_ms=error_ms)
            for r in range(5)
        ]
        write_bench(tmp_path / name / "kv_transition.sqlite", loads).close()
    for other, said in (("b", "B is worse (CLIENT-BOUND, ±40 ms)"), ("c", "cannot tell: CLIENT-BOUND, ±110 ms")):
        found = compare(str(tmp_path / "a"), str(tmp_path / other))
        assert next(d["verdict"] for d in found["differences"] if d["figure"] == "TTFT p50") == said
        assert found["client"]["A"].startswith("CLIENT-BOUND")
        assert any(line.startswith("A: CLIENT-BOUND") for line in found["lines"])
