"""Does a budget apply while answers are generated? The canary's answers are long enough to show it, or it says so."""

import re
from pathlib import Path

import orjson
import pytest

from kvt_async.contract.errors import DeadKnobError
from kvt_async.contract.settings import Settings
from kvt_async.session.canary_verdict import pairs
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.decoding_server import DecodingServer, decoding
from tests.servers.openai_server import on_loopback
from tests.worlds import levels_of, query, sweep_settings

QUIET = SweepOptions(quiet=True)
EVERY_8 = "kv.params={compression_interval: 8}"


def decode_settings(folder: Path, url: str, *overrides: str) -> Settings:
    return sweep_settings(folder, url, "kv.when=decode", "kv.budgets=[1.0, 0.5]", EVERY_8, *overrides, n=4)


def reason(settings: Settings) -> str:
    ((detail,),) = query(settings, "SELECT detail_json FROM probes WHERE verdict IS NOT NULL")
    assert orjson.loads(detail)["when"] == "decode"
    return str(orjson.loads(detail)["reason"])


@pytest.mark.parametrize("knob", ["works", "mute"])
async def test_a_budget_that_changes_answers_behind_its_first_compression_is_alive(tmp_path: Path, knob: str) -> None:
    async with decoding(knob) as url:
        settings = decode_settings(tmp_path, url)
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.canary) == (0, "alive")
    assert reason(settings).startswith("3 of 3 answers changed between full and snapkv/aware/decode")


@pytest.mark.parametrize(
    ("knob", "words"),
    [
        ("ignores_when", "before anything can have been evicted while they were generated"),
        ("echo_only", r"gave the same answer to all 7 prompts, although .* tokens of them generated behind the first"),
        ("dead", r"the server doesn't say how often it compressed \(usage\.kv\.n_compressions\)"),
    ],
)
async def test_a_server_that_does_not_apply_it_while_it_generates_is_refused_before_the_grid(
    tmp_path: Path, knob: str, words: str
) -> None:
    async with decoding(knob) as url:
        settings = decode_settings(tmp_path, url)
        with pytest.raises(DeadKnobError, match=f"(?s)not applied while answers are generated.*{words}") as caught:
            await run(settings, options=QUIET)
    assert caught.value.exit_code == 3
    assert query(settings, "SELECT (SELECT count(*) FROM requests), (SELECT count(*) FROM runs)") == [(0, 0)]


async def test_answers_that_end_before_a_compression_show_nothing_either_way(tmp_path: Path) -> None:
    async with decoding(length=lambda _: 6) as url:
        settings = decode_settings(tmp_path, url)
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.canary) == (0, "inconclusive")
    assert "only 0 tokens of them could be generated behind a first compression" in reason(settings)


async def test_it_asks_for_answers_that_go_on_behind_the_first_compression_whatever_the_task_allows(
    tmp_path: Path,
) -> None:
    server = DecodingServer("works", lambda _: 400)
    async with on_loopback(server) as url:
        levels = "kv.levels=[{budget: 1.0, unit: fraction}, {budget: 200, unit: tokens}]"
        settings = decode_settings(tmp_path, url, levels, "decoding.max_tokens=8")
        report = await run(settings, options=QUIET)
    assert report.canary == "alive"
    (longest,) = query(settings, "SELECT max(token_len) FROM manifest_entries")
    needed = 8 * ((200 - longest[0]) // 8 + 1)  # the first look at which more is held than the cap
    assert server.bodies[1]["max_tokens"] == needed + 32
    asked = [body["kv"] for body in server.bodies if body.get("kv", {}).get("when") == "decode"]
    assert {(kv["keep_tokens"], "budget" in kv) for kv in asked} == {(200, False)}


@pytest.mark.parametrize(
    ("cap", "room", "longest"),
    [
        (100_000, 1 << 30, 32),  # no answer that is waited for gets there
        (400, 300, 392 + 32),  # there is no room for so long an answer; what is refused is asked for again, shorter
    ],
)
async def test_a_cap_beyond_every_answer_is_asked_for_with_short_ones_and_a_destructive_budget(
    tmp_path: Path, cap: int, room: int, longest: int
) -> None:
    server = DecodingServer("works", lambda _: 64, room=room)
    async with on_loopback(server) as url:
        settings = decode_settings(
            tmp_path, url, f"kv.levels=[{{budget: 1.0, unit: fraction}}, {{budget: {cap}, unit: tokens}}]"
        )
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.canary) == (0, "alive")
    assert reason(settings).endswith("between full and snapkv/aware/decode compression_interval=8 16 tokens")
    assert max(body["max_tokens"] for body in server.bodies[1:]) <= longest


async def test_budgets_at_different_times_have_a_canary_each_and_both_is_held_against_prefill(tmp_path: Path) -> None:
    levels = levels_of("kv.policies=[snapkv, {policy: snapkv, when: decode}, {policy: snapkv, when: both}]").levels
    assert [(pair.mild.label, pair.harsh.label) for pair in pairs(levels)] == [
        ("full", "snapkv/aware 0.2"),
        ("full", "snapkv/aware/decode 0.2"),
        ("snapkv/aware 0.2", "snapkv/aware/both 0.2"),
    ]
    async with decoding("ignores_when") as url:
        both = "kv.policies=[snapkv, {policy: snapkv, when: both}]"
        settings = decode_settings(tmp_path, url, "kv.when=prefill", both)
        with pytest.raises(DeadKnobError) as caught:
            await run(settings, options=QUIET)
    verdicts = query(settings, "SELECT verdict, level FROM probes WHERE verdict IS NOT NULL ORDER BY n")
    assert [(verdict, re.sub(" compression_interval=8", "", level)) for verdict, level in verdicts] == [
        ("alive", "snapkv/aware 0.5"),
        ("dead", "snapkv/aware/both 0.5"),
    ]
    assert caught.value.exit_code == 3
