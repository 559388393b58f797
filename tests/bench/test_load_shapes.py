"""Ramps and steps: the schedule is the shape, exactly, and is kept, audited and resumed as any other."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.bench.bench_analysis import bench_stages
from analyzer.bench.figures.load_parts import first_break
from analyzer.verify.findings import verified
from kvt_async.bench.arrivals import n_in_shape, shape_begins_s, shaped_offsets_ns, unit_gaps
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.bench.load_steps import Load
from kvt_async.bench.loop_places import LoopPlaces, n_places, next_time
from kvt_async.bench.rival_keys import settled
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings
from kvt_async.contract.load_shape import Leg, LoadShape
from kvt_async.contract.paths import run_paths
from tests.bench_output import documented
from tests.servers.openai_server import Script, serving
from tests.worlds import bench_settings, query

QUIET = BenchOptions(quiet=True)
legs = st.lists(
    st.builds(Leg, st.floats(0.5, 200), st.floats(0.5, 200), st.floats(0.1, 30)), min_size=1, max_size=5
).map(lambda some: LoadShape("steps", tuple(some)))
arrivals = st.sampled_from(["constant", "poisson", "gamma"])


def load_with(shape: LoadShape, arrival: str = "poisson") -> Load:
    return Load(rate_per_s=shape.highest, arrival=arrival, burstiness=0.5, shape=shape)  # type: ignore[arg-type]


def area(shape: LoadShape, until_s: float) -> float:
    """The integral of the size, leg by leg: a straight line's mean times its length."""
    total, begins = 0.0, 0.0
    for leg in shape.legs:
        length = min(max(until_s - begins, 0.0), leg.for_s)
        end = leg.start + (leg.end - leg.start) * length / leg.for_s
        total, begins = total + (leg.start + end) / 2 * length, begins + leg.for_s
    return total + max(until_s - begins, 0.0) * shape.legs[-1].end


@settings(deadline=None, max_examples=60)
@given(shape=legs, arrival=arrivals, warm_up=st.integers(0, 20), seed=st.integers(0, 99))
def test_a_request_is_due_when_the_area_under_the_rate_is_the_sum_of_the_unit_gaps(
    shape: LoadShape, arrival: str, warm_up: int, seed: int
) -> None:
    load, n = load_with(shape, arrival), 200
    offsets = shaped_offsets_ns(load, warm_up, range(n), (seed,))
    assert (np.diff(offsets) >= 0).all()
    begins = shape_begins_s(load, warm_up, (seed,))
    units = np.cumsum(unit_gaps(load, warm_up + n, (seed,)))
    expected = units[warm_up:] - (units[warm_up - 1] if warm_up else 0.0)
    seen = [area(shape, offset / 1e9 - begins) for offset in offsets[warm_up:]]
    assert seen == pytest.approx(expected, rel=1e-6, abs=1e-5)
    if warm_up:
        assert offsets[:warm_up] / 1e9 == pytest.approx(units[:warm_up] / shape.first, abs=1e-8)


@settings(deadline=None, max_examples=40)
@given(shape=legs, arrival=arrivals, warm_up=st.integers(0, 20), k=st.integers(1, 300))
def test_the_head_of_a_schedule_does_not_depend_on_its_length_and_twice_the_rate_is_the_same_pattern(
    shape: LoadShape, arrival: str, warm_up: int, k: int
) -> None:
    whole = shaped_offsets_ns(load_with(shape, arrival), warm_up, range(400), (3,))
    assert (shaped_offsets_ns(load_with(shape, arrival), warm_up, range(k), (3,)) == whole[: warm_up + k]).all()
    twice = LoadShape("steps", tuple(Leg(2 * leg.start, 2 * leg.end, leg.for_s / 2) for leg in shape.legs))
    assert shaped_offsets_ns(load_with(twice, arrival), warm_up, range(400), (3,)) * 2 == pytest.approx(whole, abs=4)


@settings(deadline=None, max_examples=40)
@given(shape=legs, first=st.integers(0, 50), warm_up=st.integers(0, 9))
def test_a_resumed_window_sends_what_is_left_as_far_apart_as_it_was_planned(
    shape: LoadShape, first: int, warm_up: int
) -> None:
    load, left = load_with(shape), [first, first + 3, *range(first + 7, first + 40)]
    planned = shaped_offsets_ns(load, warm_up, range(100), (5,))[warm_up:][left]
    resumed = shaped_offsets_ns(load, warm_up, left, (5,), resumes=True)[warm_up:]
    assert np.diff(resumed) == pytest.approx(np.diff(planned), abs=2)


@settings(deadline=None, max_examples=40)
@given(shape=legs)
def test_as_many_requests_are_planned_as_fall_due_within_the_shape(shape: LoadShape) -> None:
    load = load_with(shape, "constant")
    assert n_in_shape(load, 4, (1,)) == max(1, math.floor(shape.area + 1e-9))


@settings(deadline=None, max_examples=40)
@given(shape=legs, place=st.integers(0, 40), now=st.floats(0, 60))
def test_a_place_comes_when_the_shape_reaches_it(shape: LoadShape, place: int, now: float) -> None:
    at = next_time(shape, place, now)
    grid = np.linspace(now, shape.seconds, 500) if now < shape.seconds else np.empty(0)
    has = [t for t in grid if n_places(shape, float(t)) > place and t < shape.seconds]
    assert math.isinf(at) or n_places(shape, at + 1e-9) > place or at >= shape.seconds - 1e-6
    assert not has or at <= has[0] + 1e-6


def test_a_ramp_of_places_adds_one_at_a_time_and_ends_with_all() -> None:
    shape = LoadShape("ramp", (Leg(1, 4, 6.0),))
    assert [next_time(shape, place, 0.0) for place in range(5)] == [0.0, 1.0, 3.0, 5.0, math.inf]
    places = LoopPlaces(4, shape)
    assert [places.wait_s(place, None) == 0 for place in range(2)] == [True, False]
    assert places.wait_s(3, 6.5) == 0, "when the shape is over it is the window that ends"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["bench.ramp={from: 1, to: 20}"], "needs over_s"),
        (["bench.ramp={from: 5, to: 5, over_s: 9}"], "that is one rate, not a ramp"),
        (["bench.ramp={of: concurrency, from: 0, to: 9, over_s: 9}"], "whole numbers from 1 on"),
        (["bench.ramp={from: 1, to: 9, over_s: 90}", "bench.duration_s=60"], "ends it after 60 s"),
        (["bench.steps=[{rate: 2, for_s: 3}]"], "needs 2 to"),
        (["bench.steps=[{rate: 2, for_s: 3}, {concurrency: 2, for_s: 3}]"], "all of a rate or all of a concurrency"),
        (["bench.steps=[{rate: 2, concurrency: 3, for_s: 3}, {rate: 1, for_s: 3}]"], "one of the two"),
        (["bench.steps=[{rat: 2, for_s: 3}]"], "Did you mean bench.steps.rate?"),
        (["bench.ramp={form: 1, to: 9, over_s: 3}"], "unknown key bench.ramp.form"),
        (["bench.ramp={from: 1, to: 9, over_s: 3}", "bench.rate=2"], "one load at a time"),
        (["bench.ramp={from: 1, to: 9, over_s: 3}", "bench.requests=9"], "leave requests (9) out"),
    ],
)
def test_a_shape_that_is_none_is_refused_in_words(options: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(None, options, environ={})
    assert words in str(refused.value)


def test_a_shape_of_the_command_line_takes_the_place_of_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text("bench: {rate: 4, requests: 50, duration_s: 10}\n")
    steps = settled(["bench.steps=[{rate: 2, for_s: 3}, {rate: 1, for_s: 3}]"])
    assert load_settings(file, steps, environ={}).bench.shape == LoadShape("steps", (Leg(2, 2, 3), Leg(1, 1, 3)))
    ramp = settled(["bench.ramp={from: 1, to: 9, over_s: 4}"])
    assert load_settings(file, ramp, environ={}).bench.shape == LoadShape("ramp", (Leg(1, 9, 4), Leg(9, 9, 6)))


async def test_steps_are_sent_as_stored_in_one_window_and_a_second_bench_has_nothing_to_send(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        config = bench_settings(
            tmp_path, url, "bench.requests=auto", "bench.arrival=constant",
            "bench.steps=[{rate: 40, for_s: 0.25}, {rate: 160, for_s: 0.25}, {rate: 40, for_s: 0.25}]",
        )  # fmt: skip
        report = await run(config, QUIET)
        again = await run(config, QUIET)
    assert (report.exit_code, report.pending, again.session_id) == (0, 0, None)
    rows = query(config, """SELECT b.offset_ns, t.intended_ns - w.start_ns FROM bench_arrivals b JOIN requests r
        USING (request_id) JOIN telemetry t USING (request_id) JOIN bench_windows w USING (run_id)
        ORDER BY t.intended_ns""")  # fmt: skip
    assert all(offset == intended for offset, intended in rows)
    assert [round(offset / 1e6) for offset, _ in rows[:5]] == [25, 50, 75, 100, 125], "four warm up at the first rate"
    assert np.diff([offset for offset, _ in rows[14:53]]) == pytest.approx(1e9 / 160, abs=2)
    assert query(config, "SELECT load, rate_per_s, n_measured FROM bench_stages") == [
        ("steps 40, 160, 40/s of 0.25 s constant", 160.0, 60)
    ]
    (point,) = documented(bench_stages(config))["points"]
    parts = point["parts"]
    assert [(part["kind"], part["name"], part["n"] + part["n_margin"]) for part in parts] == [
        ("step", "40/s", 9), ("step", "160/s", 40), ("step", "40/s", 11)
    ]  # fmt: skip
    assert parts[2]["figures"]["settled_s"] is not None
    assert point["figures"]["requests_per_s"]["reason"].startswith("the load changes")
    assert point["figures"]["in_flight_peak"]["value"] >= 1
    assert verified(run_paths(config.output.runs_dir, "b", config.db.path).db).total.n_differences == 0


async def test_steps_of_a_closed_loop_add_and_take_away_places(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.02)) as (server, url):
        config = bench_settings(
            tmp_path, url, "bench.requests=auto",
            "bench.steps=[{concurrency: 1, for_s: 0.3}, {concurrency: 4, for_s: 0.3}, {concurrency: 2, for_s: 0.3}]",
        )  # fmt: skip
        report = await run(config, QUIET)
        assert server.most_in_flight == 4
        with pytest.raises(ConfigError, match="one process"):
            await run(config.model_copy(update={"limits": config.limits.model_copy(update={"processes": 2})}), QUIET)
    assert report.exit_code == 0
    spans = query(config, """SELECT (t.start_ns - e.measured_from_ns) / 1e9, (t.end_ns - e.measured_from_ns) / 1e9
        FROM bench_arrivals JOIN telemetry t USING (request_id) JOIN bench_window_ends e
        WHERE phase = 'measured'""")  # fmt: skip

    def most(low: float, high: float) -> int:
        return int(max(sum(a <= at < b for a, b in spans) for at in np.linspace(low, high, 200)))

    assert most(0.0, 0.29) == 1
    assert most(0.31, 0.59) == 4
    assert most(0.6 + max(b - a for a, b in spans), 0.89) <= 2, "those in flight end, and are not followed"
    assert query(config, "SELECT measured_to_ns - measured_from_ns >= 9e8 FROM bench_window_ends") == [(1,)]


async def test_a_warm_up_by_places_ends_once_every_place_has_given_back_a_request(tmp_path: Path) -> None:
    slow_first = Script(delay_s=0.01)
    async with serving(slow_first) as (_, url):
        config = bench_settings(tmp_path, url, "bench.concurrency=3", "bench.warm_up.places=2")
        await run(config, QUIET)
        by_latency = bench_settings(tmp_path, url, "experiment.exp_group_id=o", "bench.rate=100",
                                    "bench.warm_up.places=3")  # fmt: skip
        await run(by_latency, QUIET)
    ended = query(config, """SELECT count(*) FROM bench_arrivals b JOIN telemetry t USING (request_id) WHERE
        b.phase = 'warm_up' AND t.end_ns < (SELECT measured_from_ns FROM bench_window_ends)""")  # fmt: skip
    assert ended[0][0] >= 6, "two of each of three places"
    assert query(config, "SELECT count(*) FROM bench_arrivals WHERE phase = 'measured'") == [(20,)]
    assert query(config, "SELECT json_extract(plan_json, '$.warm_up_places') FROM bench_stages") == [(2.0,)]
    ((n,),) = query(by_latency, "SELECT n_warm_up FROM bench_stages")
    assert n >= 3, "rate x latency requests are under way, three times over"


def test_a_ramp_breaks_a_limit_where_more_than_the_share_is_beyond_it_from_there_on() -> None:
    sizes = np.linspace(0, 20, 2000)
    assert first_break(sizes, sizes > 12, 0.01) == pytest.approx(12, abs=0.02)
    rng = np.random.default_rng(1)
    growing = rng.random(2000) < np.clip((sizes - 10) / 10, 0, 1)
    assert 10 <= first_break(sizes, growing, 0.1) <= 12.5
    assert math.isnan(first_break(sizes, np.zeros(2000, dtype=bool), 0.01))
    last = np.zeros(2000, dtype=bool)
    last[-1] = True
    assert math.isnan(first_break(sizes, last, 0.01)), "one slow request at the very end is chance"
    scattered = rng.random(2000) < 0.004
    assert math.isnan(first_break(sizes, scattered, 0.1))


def test_a_server_that_keeps_a_limit_is_seldom_said_to_break_it() -> None:
    sizes, rng = np.linspace(0, 20, 400), np.random.default_rng(2)
    told = sum(not math.isnan(first_break(sizes, rng.random(400) < 0.1, 0.1)) for _ in range(300))
    assert told <= 17, "the 99.9% bound of a share of 2.5%: the very share that is allowed, and nothing but chance"
