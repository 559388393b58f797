"""Does the server apply the budget? A dead knob stops the sweep before the grid; one unlike itself is told apart."""

import re
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest

from kvt_async.contract.errors import ConfigError, DeadKnobError, KvtError, ServerError
from kvt_async.contract.settings import Settings
from kvt_async.session.canary_prompts import DEPTHS, FIRST, MOST, lookups
from kvt_async.session.canary_verdict import pairs
from kvt_async.sweep.sweep import SweepOptions, run
from kvt_async.ways.levels import make_levels
from tests.servers.openai_server import Script, serving
from tests.worlds import query, sweep_settings, write_examples

QUIET = SweepOptions(quiet=True)


def verdicts(settings: Settings) -> list[tuple[str, str]]:
    sql = "SELECT verdict, level FROM probes WHERE kind = 'canary' AND verdict IS NOT NULL"
    return query(settings, sql)


async def test_a_server_that_ignores_the_budget_is_refused_before_the_grid(tmp_path: Path) -> None:
    async with serving(Script(knob="dead")) as (server, url):
        settings = sweep_settings(tmp_path, url)
        with pytest.raises(DeadKnobError, match="--allow-dead-knob") as caught:
            await run(settings, options=QUIET)
    assert caught.value.exit_code == 3
    assert "full and snapkv/aware 0.2 and snapkv/aware 0.02 gave the same answer to all 15 prompts" in str(caught.value)
    assert query(settings, "SELECT (SELECT count(*) FROM requests), (SELECT count(*) FROM runs)") == [(0, 0)]
    assert query(settings, "SELECT exit_code, reason FROM session_ends") == [(3, "refused")]
    assert verdicts(settings) == [("dead", "snapkv/aware 0.2")]
    assert 0.02 in {body["kv"]["budget"] for body in server.bodies}  # asked the harshest before saying so


async def test_a_dead_knob_may_be_allowed_and_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(knob="dead")) as (_, url):
        settings = sweep_settings(tmp_path, url)
        report = await run(settings, options=replace(QUIET, allow_dead_knob=True))
    assert (report.exit_code, report.canary, report.responses) == (0, "dead", 48)
    assert verdicts(settings)[0][0] == "dead"
    assert "budgets are labels" in capsys.readouterr().err


async def test_a_server_unlike_itself_at_full_cache_is_inconclusive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(knob="random")) as (_, url):
        settings = sweep_settings(tmp_path, url, n=4)
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.canary) == (0, "inconclusive")
    assert "inconclusive" in capsys.readouterr().err


async def test_a_server_that_only_reports_a_budget_is_a_dead_knob_too(tmp_path: Path) -> None:
    """An echo is no proof: the answers themselves must feel a destructive budget."""
    async with serving(Script(knob="echo_only")) as (_, url):
        with pytest.raises(DeadKnobError, match=r"although the server reports 0\.02 kept"):
            await run(sweep_settings(tmp_path, url, n=4), options=QUIET)


async def test_the_canary_asks_full_twice_and_the_harshest_once_with_several_tokens_and_leaves_no_requests(
    tmp_path: Path,
) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, "decoding.max_tokens=3", "decoding.temperature=0.7", n=4)
        report = await run(settings, options=QUIET)
    probes = [body for body in server.bodies if body["max_tokens"] == 8]
    assert [body["kv"]["budget"] for body in probes] == [1.0, 1.0, 0.2] * 3
    assert {body["temperature"] for body in probes} == {0}
    longest = max(len(body["messages"][0]["content"]) for body in server.bodies)
    assert len(probes[0]["messages"][0]["content"]) == longest
    assert report.canary == "alive"
    assert query(settings, "SELECT count(*) FROM requests") == [(16,)]
    assert query(settings, "SELECT count(*) FROM probes WHERE answer IS NOT NULL") == [(9,)]


@pytest.mark.parametrize(
    ("hurts", "reason"),
    [
        ("Fact 6:", "1 of 3 answers changed between full and snapkv/aware 0.2"),  # the longest
        ("Fact 5:", "1 of 4 answers changed between full and snapkv/aware 0.2"),  # neither longest, shortest nor middle
        ("code of the", "1 of 13 answers changed between full and snapkv/aware 0.2"),  # a lookup of the canary's own
    ],
)
async def test_one_answer_that_changes_among_more_prompts_shows_a_live_knob(
    tmp_path: Path, hurts: str, reason: str
) -> None:
    async with serving(Script(hurts=hurts)) as (_, url):
        settings = sweep_settings(tmp_path, url)
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.canary) == (0, "alive")
    (found,) = query(settings, "SELECT detail_json FROM probes WHERE verdict IS NOT NULL")
    assert orjson.loads(found[0])["reason"] == reason


async def test_prompts_of_every_length_are_asked_before_a_knob_is_called_dead(tmp_path: Path) -> None:
    async with serving(Script(knob="dead")) as (server, url):
        with pytest.raises(DeadKnobError):
            await run(sweep_settings(tmp_path, url, n=30), options=QUIET)
    prompts = list(dict.fromkeys(body["messages"][0]["content"] for body in server.bodies))
    assert len(prompts) == MOST + len(DEPTHS)
    lengths = [len(prompt) for prompt in prompts[:MOST]]
    assert lengths[0] == max(lengths)
    assert lengths[1] == min(lengths)
    assert len(set(lengths)) > 7
    asked = [body["kv"]["budget"] for body in server.bodies if body["messages"][0]["content"] == prompts[-1]]
    assert asked == [1.0, 1.0, 0.2, 0.02]  # the config's own lowest budget beside the destructive one


def test_a_lookup_needs_what_stands_at_its_depth() -> None:
    for entry, depth in zip(lookups(), DEPTHS, strict=True):
        codes = re.findall(r"is (\d+)\.", entry.context)
        assert len(codes) >= 2
        assert all(code not in entry.question for code in codes)
        assert entry.context.index(codes[0]) / len(entry.context) == pytest.approx(depth, abs=0.1)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("http_501", ServerError, "the server answers no prompt"),
        ("garbage", ServerError, "the server answers no prompt"),
        ("http_400", ConfigError, "kv.apply"),
        ("http_403", ConfigError, "OPENAI_API_KEY"),
        ("http_402", ConfigError, "nothing left to spend"),
    ],
)
async def test_a_canary_without_any_answer_stops_the_run_before_the_grid(
    tmp_path: Path, fault: str, error: type[KvtError], words: str
) -> None:
    async with serving(Script(faults={fault: 1.0})) as (server, url):
        settings = sweep_settings(tmp_path, url)
        with pytest.raises(error, match=words):
            await run(settings, options=QUIET)
    assert len(server.bodies) <= FIRST
    assert query(settings, "SELECT count(*) FROM requests") == [(0,)]


@pytest.mark.parametrize("apply", ["kv.apply=null", "kv.control_repeats=0"])
async def test_a_port_that_speaks_http_and_no_more_is_sent_one_prompt(tmp_path: Path, apply: str) -> None:
    """With a canary or without one."""
    posts: list[str] = []

    class Files(SimpleHTTPRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            posts.append(self.command) if self.command == "POST" else None

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(tmp_path)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        settings = sweep_settings(tmp_path, f"http://127.0.0.1:{http.server_address[1]}/v1", apply)
        with pytest.raises(ServerError, match=r"answers no prompt .*HTTP 501") as caught:
            await run(settings, options=QUIET)
    finally:
        http.shutdown()
        http.server_close()
    assert caught.value.exit_code == 5
    assert posts == ["POST"]
    assert query(settings, "SELECT count(*) FROM requests") == [(0,)]


async def test_a_prompt_that_is_refused_as_too_long_does_not_stop_a_canary_that_others_answer(tmp_path: Path) -> None:
    async with serving(Script(too_long=200)) as (_, url):
        data = tmp_path / "examples.jsonl"
        write_examples(data, 12)
        settings = sweep_settings(tmp_path, url)
        report = await run(settings, options=QUIET)
    assert report.canary == "alive"


async def test_nothing_is_asked_when_nothing_is_left_to_send(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, n=4)
        await run(settings, options=QUIET)
        sent = len(server.bodies)
        await run(settings, options=QUIET)
    assert len(server.bodies) == sent


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["kv.budgets=[1.0, 0.5]"], True),
        (["kv.budgets=[1.0]"], False),
        (["kv.apply={via: none}"], False),
        (["kv.unit=bits", "kv.budgets=[16, 8, 4]"], False),
        (["kv.unit=tokens", "kv.budgets=[512, 64]"], True),
    ],
)
def test_it_applies_to_eviction_budgets_that_travel_with_the_request(overrides: list[str], expected: bool) -> None:
    from kvt_async.contract.load import load_settings

    assert bool(pairs(make_levels(load_settings(None, overrides, environ={})).levels)) is expected


async def test_a_server_that_hangs_up_during_the_canary_ends_the_run_with_5(tmp_path: Path) -> None:
    async with serving(Script(faults={"hang_up": 1.0})) as (_, url):
        settings = sweep_settings(tmp_path, url)
        with pytest.raises(ServerError, match="during the canary"):
            await run(settings, options=QUIET)
    assert query(settings, "SELECT exit_code, reason FROM session_ends") == [(5, "server")]
