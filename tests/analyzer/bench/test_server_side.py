"""What engines say of a stage on their pages -> figures: pages read over HTTP, in each engine's own format."""

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import aiohttp
import polars as pl
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from analyzer.bench.figures.points import points
from analyzer.bench.figures.stage_results import result_of
from analyzer.bench.read.request_metrics import with_metrics
from analyzer.bench.read.server_series import acceptance, between, figure_growth, gauge, growth, restarts
from analyzer.bench.read.server_side import RepliesDrafts, ServerSide, server_side
from analyzer.bench.read.stage_facts import PageReading, StageFacts, requests, stages
from analyzer.bench.report.server_words import warnings
from kvt_async.bench.scrape import Sampler, parse_page, search_page
from kvt_async.contract.errors import ServerError
from kvt_async.contract.formulas.server_figures import FIGURES, FigureKind
from kvt_async.contract.live_figures import ServerNow
from tests.analyzer.bench_rows import GROUP, Load, steady, write_bench
from tests.servers.engine_pages import PAGES, Done, iterations, sglang, vllm
from tests.servers.openai_server import on_loopback

BEFORE = Done(requests=5, prompt_tokens=900, cached_tokens=400, generated=70, drafts=10, draft_tokens=30,
              accepted=(9, 8, 7), drafted=(10, 10, 10), preempted=2)  # fmt: skip
DURING = replace(BEFORE, running=8, waiting=3, kv_usage=0.75, accept_length=2.5, accept_rate=0.5)
AFTER = replace(BEFORE, requests=25, prompt_tokens=1900, cached_tokens=650, generated=190, drafts=50, draft_tokens=150,
                accepted=(39, 28, 17), drafted=(50, 50, 50), preempted=3)  # fmt: skip
Pages = Callable[[str], str | None]  # path -> what stands there now


class PageServer:
    """Serves what `pages` says, and nothing else; has the `app` that on_loopback wants."""

    def __init__(self, pages: Pages) -> None:
        self.pages, self.app = pages, web.Application()
        self.app.router.add_get("/{path:.*}", self.page)

    async def page(self, http: web.Request) -> web.Response:
        text = self.pages(http.path)
        return web.Response(status=404) if text is None else web.Response(text=text)


@asynccontextmanager
async def reading(pages: Pages, rows: list[dict[str, Any]], every_s: float = 0.0) -> AsyncIterator[Sampler]:
    """A sampler of the /metrics page of a server with these pages, which writes into `rows`."""

    async def save(row: dict[str, Any]) -> None:
        rows.append(row)

    async with on_loopback(PageServer(pages)) as url, aiohttp.ClientSession() as session:

        async def get_text(page: str) -> str:
            async with session.get(page) as reply:
                if reply.status != 200:
                    raise ServerError(f"HTTP {reply.status}", where=page)
                return await reply.text()

        yield Sampler(get_text, [url.removesuffix("/v1") + "/metrics"], every_s, "s", "r", save)


def readings_of(rows: list[dict[str, Any]]) -> tuple[PageReading, ...]:
    """As the analyzer reads them back from the database."""
    return tuple(
        PageReading(
            session_id=row["session_id"],
            phase=row["phase"],
            at_ns=row["at_ns"],
            endpoint=row["endpoint"],
            metrics=json.loads(row["metrics_json"] or "{}"),
            error=row["error"],
        )
        for row in rows
    )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageFacts, pl.DataFrame]:
    """A stage of 20 requests, and its requests."""
    with closing(write_bench(tmp_path_factory.mktemp("stage") / "k.sqlite", [Load(steady(20))])) as conn:
        (facts,) = stages(conn, GROUP)
        return facts, with_metrics(requests(conn, facts.run_id))


def told(stage: tuple[StageFacts, pl.DataFrame], *readings: PageReading) -> ServerSide:
    side = server_side(replace(stage[0], samples=readings), stage[1], RepliesDrafts())
    assert side is not None
    return side


SAID: dict[str, dict[str, Any]] = {  # by engine; what is missing it doesn't say
    "vLLM": {"preempted": 1, "kv": 0.75, "ttft": 0.05, "of_others": 0, "source": "counters"},
    "SGLang": {"preempted": 1, "kv": 0.75, "ttft": 0.05, "of_others": 0, "source": "counters"},
    "llama.cpp": {"source": "counters"},
    "TensorRT-LLM": {"kv": 0.75, "ttft": 0.05, "of_others": 0, "source": "counters"},
}


@pytest.mark.parametrize("engine", PAGES)
async def test_every_engine_is_understood_and_what_it_does_not_say_is_told_apart(
    engine: str, stage: tuple[StageFacts, pl.DataFrame]
) -> None:
    now, rows = [BEFORE], list[dict[str, Any]]()

    def pages(path: str) -> str | None:
        if engine == "TensorRT-LLM":  # its /metrics is JSON, empty without iteration statistics
            return {"/metrics": "[]", "/prometheus/metrics": PAGES[engine](now[0])}.get(path)
        return PAGES[engine](now[0]) if path == "/metrics" else None

    async with reading(pages, rows) as sampler:
        await sampler.take("before")
        now[0] = DURING
        await sampler.take_quickly()
        at_work = sampler.now()
        now[0] = AFTER
        await sampler.take("after")
    side, said = told(stage, *readings_of(rows)), SAID[engine]
    assert side.engine == engine
    assert at_work == ServerNow(8, 3, said.get("kv"))
    assert (side.gauges["running"].maximum, side.gauges["waiting"].maximum) == (8, 3)
    assert side.counters.get("preemptions") == said.get("preempted")
    assert ("kv_usage" in side.gauges) == ("kv" in said)
    assert side.cached_share == 0.25  # 250 of 1,000
    assert side.counters["generation_tokens"] == 120
    assert (side.of_others, side.tokens_of_others) == (said.get("of_others"), 0)
    seen = side.histograms.get("ttft")
    assert (seen is None) == ("ttft" not in said)
    assert seen is None or (seen.count, seen.mean) == pytest.approx((20, 0.05))
    drafting = side.drafting
    assert drafting is not None
    assert drafting.source == said["source"]
    if engine == "SGLang":  # 120 generated, 20 of them first tokens; it counts no drafted tokens
        assert drafting.accepted_length == pytest.approx(100 / 40)
        assert drafting.acceptance == 0.5
        return
    assert drafting.acceptance == pytest.approx(60 / 120)
    assert drafting.accepted_length == pytest.approx(1 + 60 / 40)
    assert drafting.draft_length == pytest.approx(3)
    assert drafting.by_position == pytest.approx((30 / 40, 20 / 40, 10 / 40))


async def test_iteration_statistics_are_added_up_since_each_reading_empties_them(
    stage: tuple[StageFacts, pl.DataFrame],
) -> None:
    pages = iter([iterations(Done(), [(9, 90, 9)]),
                  iterations(replace(DURING, paused=1), [(4, 12, 6), (4, 12, 9)]), "[]",
                  iterations(Done(), [(2, 6, 3)])])  # fmt: skip
    rows: list[dict[str, Any]] = []
    async with reading(lambda path: next(pages) if path == "/metrics" else None, rows) as sampler:
        await sampler.take("before")
        await sampler.take_quickly()
        assert sampler.now() == ServerNow(8, 3, 0.75)
        await sampler.take_quickly()
        await sampler.take("after")
    side = told(stage, *readings_of(rows))
    assert side.drafting is not None
    assert side.drafting.acceptance == pytest.approx(18 / 30)
    assert side.drafting.accepted_length == pytest.approx(1 + 18 / 10)
    assert (side.gauges["kv_usage"].maximum, side.took_back, side.of_others) == (0.75, 1, None)


@pytest.mark.parametrize("engine", PAGES)
def test_a_page_that_is_searched_says_what_it_says_when_it_is_parsed(engine: str) -> None:
    page = PAGES[engine](replace(AFTER, running=8, waiting=3, kv_usage=0.75))
    whole, quick = parse_page(page), search_page(page)
    names = {name for name, figure in FIGURES.items() if figure.kind != FigureKind.HISTOGRAM}
    assert {name: FIGURES[name].value(quick) for name in names} == {name: FIGURES[name].value(whole) for name in names}
    assert quick.items() <= whole.items()


def test_engines_of_one_server_and_several_servers_are_put_together(stage: tuple[StageFacts, pl.DataFrame]) -> None:
    def pages(phase: str, at_ns: int, now: Done) -> list[PageReading]:
        two = PageReading("s", phase, at_ns, "http://a/metrics", parse_page(vllm(now, engines=2)), None)
        one = PageReading("s", phase, at_ns + 1, "http://b/metrics", parse_page(vllm(replace(now, kv_usage=1.0))), None)
        return [two, one]

    idle = replace(BEFORE, kv_usage=0.1)
    side = told(stage, *pages("before", 1, idle), *pages("during", 5, DURING), *pages("after", 9, AFTER))
    assert side.counters["preemptions"] == 3
    assert side.gauges["running"].maximum == 8 * 3
    assert side.gauges["kv_usage"].maximum == 1.0
    assert side.kv_is_full
    assert side.of_others == 3 * 20 - 20


def test_windows_of_a_resumed_stage_are_added_and_not_what_lies_between_them(
    stage: tuple[StageFacts, pl.DataFrame],
) -> None:
    def page(session: str, phase: str, at_ns: int, preempted: int) -> PageReading:
        return PageReading(session, phase, at_ns, "e", parse_page(vllm(replace(BEFORE, preempted=preempted))), None)

    side = told(stage, page("s", "before", 1, 5), page("s", "during", 2, 7), page("t", "before", 1, 90),
                page("t", "after", 2, 91))  # fmt: skip
    assert side.counters["preemptions"] == 3
    assert side.n_restarts == 0


def test_a_counter_that_stands_still_is_not_one_that_is_not_there(stage: tuple[StageFacts, pl.DataFrame]) -> None:
    def pages(page: str) -> list[PageReading]:
        return [PageReading("s", phase, n, "e", parse_page(page), None) for n, phase in enumerate(("before", "after"))]

    assert told(stage, *pages(vllm(BEFORE))).counters["preemptions"] == 0
    assert (
        "preemptions"
        not in told(stage, *pages("# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 0\n")).counters
    )
    idle = told(stage, *pages(sglang(BEFORE)))
    assert idle.drafting is None
    assert math.isnan(idle.cached_share)


NAME_OF_LLAMA = "llamacpp:tokens_predicted_total"


def test_a_server_that_generated_more_than_our_replies_hold_was_not_alone(
    stage: tuple[StageFacts, pl.DataFrame],
) -> None:
    def side(frame: pl.DataFrame) -> int | None:
        counts = {"before": 50.0, "after": 50.0 + n + 60}
        pages = [PageReading("s", phase, 1, "e", {NAME_OF_LLAMA: count}, None) for phase, count in counts.items()]
        seen = server_side(replace(stage[0], samples=tuple(pages)), frame, RepliesDrafts())
        assert seen is not None
        return seen.tokens_of_others

    n = int(stage[1]["completion_tokens"].sum())
    assert side(stage[1]) == 60
    assert side(stage[1].with_columns(n_attempts=2)) is None  # a try that failed may have generated some


def test_replies_that_count_their_own_drafts_are_believed_where_no_page_does(
    stage: tuple[StageFacts, pl.DataFrame],
) -> None:
    side = server_side(replace(stage[0], samples=()), stage[1], RepliesDrafts(drafted=80, accepted=20))
    assert side is not None
    assert side.drafting is not None
    assert (side.drafting.acceptance, side.drafting.source) == (0.25, "replies")
    assert server_side(replace(stage[0], samples=()), stage[1], RepliesDrafts()) is None


NAME = "vllm:num_preemptions_total"
NOTHING: Any = dict.fromkeys(StageFacts.__slots__)
NO_STAGE = StageFacts(**NOTHING)  # only its readings matter


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), min_size=1, max_size=5))
def test_a_counter_is_followed_through_every_restart(counts: list[list[int]]) -> None:
    """`counts`: what each life of a server counts between readings. What a life had counted at its last reading is lost
    to whoever reads, where the next one has counted as much by its first."""
    lives_seen = [list(accumulate(life)) for life in counts]
    pages = [0, *chain.from_iterable(lives_seen)]
    readings = [PageReading("s", "during", n, "e", {NAME: value}, None) for n, value in enumerate(pages)]
    facts = replace(NO_STAGE, samples=tuple(readings))
    hidden = sum(one[-1] for one, other in pairwise(lives_seen) if other[0] >= one[-1])
    assert growth(facts, NAME.removesuffix("_total")) == sum(map(sum, counts)) - hidden
    assert restarts(facts) == sum(after < before for before, after in pairwise(pages))


def test_what_was_drafted_between_two_readings_is_a_point_over_time(stage: tuple[StageFacts, pl.DataFrame]) -> None:
    states = enumerate([BEFORE, DURING, AFTER])
    pages = [PageReading("s", "during", n * 10, "e", search_page(vllm(now)), None) for n, now in states]
    facts = replace(stage[0], samples=tuple(pages))
    assert acceptance(facts) == [("s", 20, 0.5)]
    assert gauge(facts, FIGURES["waiting"]) == [("s", 0, 0.0), ("s", 10, 3.0), ("s", 20, 0.0)]
    assert figure_growth(facts, FIGURES["preemptions"]) == 1


def test_a_part_of_a_stage_has_the_growth_and_the_readings_of_its_own_time(
    stage: tuple[StageFacts, pl.DataFrame],
) -> None:
    states = enumerate([BEFORE, DURING, AFTER, replace(AFTER, preempted=9)])
    pages = [PageReading("s", "during", n * 10, "e", search_page(vllm(now)), None) for n, now in states]
    part = between(replace(stage[0], samples=tuple(pages)), "s", from_ns=15, to_ns=25)
    assert figure_growth(part, FIGURES["preemptions"]) == 1
    assert gauge(part, FIGURES["waiting"]) == [("s", 20, 0.0)]
    assert between(part, "t", 0, 99).samples == ()


def test_the_verdict_warns_of_the_loads_where_a_server_had_no_room_or_began_anew(tmp_path: Path) -> None:
    def load(label: str, before: dict[str, float], after: dict[str, float]) -> Load:
        return Load(steady(20), label=label, before=before, after=after)

    usage, preempted = "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total"
    loads = [
        load("rate 1/s", {usage: 0.2, preempted: 5}, {usage: 0.6, preempted: 5}),
        load("rate 2/s", {usage: 0.2, preempted: 5}, {usage: 1.0, preempted: 5}),
        load("rate 4/s", {usage: 0.2, preempted: 5}, {usage: 1.0, preempted: 9}),
        load("rate 8/s", {usage: 0.2, preempted: 5}, {usage: 0.2, preempted: 0}),
    ]
    with closing(write_bench(tmp_path / "k.sqlite", loads)) as conn:
        seen = points([result_of(conn, stage, 0.05) for stage in stages(conn, GROUP)], 0.05)
    assert [line.partition(":")[2].partition(":")[0] for line in warnings(seen)] == [
        " the server took the KV cache of running requests back at rate 4/s (4 requests)",
        " the server's KV cache was full at rate 2/s",
        " a server was started again during rate 8/s",
    ]


ODD_PAGE = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} NaN
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 2
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="+Inf"} 4
vllm:time_to_first_token_seconds_sum NaN
vllm:time_to_first_token_seconds_count 4
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 4
vllm:e2e_request_latency_seconds_sum 8
vllm:e2e_request_latency_seconds_count 4
"""


def test_what_a_page_has_as_nan_is_not_there() -> None:
    page = parse_page(ODD_PAGE)
    assert sorted(page) == ["vllm:e2e_request_latency_seconds", "vllm:num_requests_waiting"]
    assert search_page(ODD_PAGE) == {"vllm:num_requests_waiting": 2.0}
    with pytest.raises(ValueError, match="abc"):
        parse_page(ODD_PAGE.replace("+Inf", "abc"))


def test_a_nan_that_was_stored_as_null_is_not_there(tmp_path: Path) -> None:
    """Older databases hold it: JSON has no NaN."""
    metrics: dict[str, Any] = {
        "vllm:num_requests_running": None,
        "vllm:num_requests_waiting": 2.0,
        "vllm:e2e_request_latency_seconds": {"count": 1.0, "sum": None, "buckets": {"+Inf": 1.0}},
    }
    with closing(write_bench(tmp_path / "k.sqlite", [Load(steady(20))])) as conn:
        (session_id, run_id) = conn.execute("SELECT session_id, run_id FROM bench_windows").fetchone()
        conn.execute(
            "INSERT INTO server_samples "
            "(session_id, n, run_id, phase, at_ns, took_ms, taken_at, endpoint, metrics_json) "
            "VALUES (?, 900, ?, 'during', 1, 1, '2026-12-01T00:00:00.000Z', 'http://h/metrics', ?)",
            (session_id, run_id, json.dumps(metrics)),
        )
        (facts,) = stages(conn, GROUP)
    assert facts.samples[-1].metrics == {"vllm:num_requests_waiting": 2.0}
    assert not gauge(facts, FIGURES["running"])
