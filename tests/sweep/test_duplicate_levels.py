"""Levels that are one level on every prompt run once, and it is said before anything is sent."""

from pathlib import Path

import pytest

from kvt_async.contract.settings import Settings
from kvt_async.sweep.dry_run import lines
from kvt_async.sweep.sweep import SweepOptions, run
from kvt_async.validate import validate
from tests.servers.openai_server import Script, serving
from tests.worlds import levels_of, query, sweep_settings

QUIET = SweepOptions(quiet=True)
BLOCKS = "kv.apply={via: body, body: {kv: {budget: '{keep_tokens}'}}, round_to: 16}"


def test_caps_that_a_servers_blocks_make_equal_are_one_level_under_the_name_that_is_true() -> None:
    found = levels_of("kv.unit=tokens", "kv.budgets=[512, 256, 250, 241, 240]", BLOCKS, "kv.control_repeats=0")
    assert [level.label for level in found.levels] == [
        "snapkv/aware 512 tokens", "snapkv/aware 256 tokens", "snapkv/aware 240 tokens",
    ]  # fmt: skip
    said = [note for note in found.notes if "are one level" in note]
    assert said[0] == (
        "snapkv/aware 250 tokens and snapkv/aware 256 tokens are one level: the server keeps 256 tokens for both; "
        "it runs once, as snapkv/aware 256 tokens"
    )
    assert len(said) == 2


def test_validate_says_it_too(tmp_path: Path) -> None:
    settings = sweep_settings(tmp_path, "http://127.0.0.1:1/v1", "kv.unit=tokens", "kv.budgets=[256, 250]", BLOCKS)
    assert any("are one level" in note for note in validate(settings)["notes"])


def test_the_rounding_of_a_server_is_part_of_a_levels_identity_and_only_where_it_rounds() -> None:
    plain, blocks = levels_of("kv.apply={via: body, body: {x: 1}}").levels, levels_of(BLOCKS).levels
    assert "round_to" not in plain[1].apply
    assert (blocks[1].apply["round_to"], blocks[1].apply["rounding"]) == (16, "up")
    assert "round_to" not in blocks[0].apply  # full cache keeps everything, in blocks or not


def counted(folder: Path, url: str, *overrides: str) -> Settings:
    """An experiment whose tokens are counted, not estimated: prompts of 40 to 45 tokens in 2 bins."""
    return sweep_settings(folder, url, "tokenizer.name=reference", *overrides, n=6)


async def dry(settings: Settings) -> tuple[list[str], list[str], list[str]]:
    report = await run(settings, options=SweepOptions(quiet=True, dry_run=True))
    assert report.plan is not None
    return [level["level"] for level in report.plan["levels"]], report.plan["notes"], lines(report.plan)


async def test_a_cap_above_every_prompt_is_full_cache_and_runs_once_as_that(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = counted(tmp_path, url, "kv.unit=tokens", "kv.levels=[{budget: 1.0, unit: fraction}, "
                           "{budget: 100000}, {budget: 8}]", "kv.control_repeats=0")  # fmt: skip
        names, notes, text = await dry(settings)
        assert names == ["full", "snapkv/aware 8 tokens"]
        sentence = "snapkv/aware 100000 tokens and full are one level here: no prompt is longer; it runs once, as full"
        assert notes == [sentence]
        assert f"note: {sentence}" in text
        assert server.bodies == []
        assert (await run(settings, options=QUIET)).responses == 12
    assert query(settings, "SELECT series FROM runs ORDER BY level_idx") == [("full",), ("snapkv/aware",)]


async def test_fractions_that_keep_the_same_tokens_of_every_prompt_are_one_level(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        fine = counted(tmp_path, url, "kv.budgets=[1.0, 0.5, 0.499, 0.3]", "kv.control_repeats=0")
        names, _, _ = await dry(fine)
        coarse = counted(tmp_path, url, "kv.budgets=[1.0, 0.5, 0.45, 0.3]", "kv.control_repeats=0", BLOCKS.replace(
            "round_to: 16", "round_to: 32"))  # fmt: skip
        rounded, notes, _ = await dry(coarse)
    assert names == ["full", "snapkv/aware 0.5", "snapkv/aware 0.499", "snapkv/aware 0.3"]  # 20 of 40, 19 of 40
    assert rounded == ["full", "snapkv/aware 0.5"]
    assert [note.partition(":")[0] for note in notes] == [
        "snapkv/aware 0.45 and snapkv/aware 0.5 are one level here",
        "snapkv/aware 0.3 and snapkv/aware 0.5 are one level here",
    ]


async def test_estimated_counts_merge_nothing(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url, "kv.levels=[{budget: 1.0}, {budget: 100000, unit: tokens}]",
                                "kv.control_repeats=0")  # fmt: skip
        names, notes, _ = await dry(settings)
    assert (names, notes) == (["full", "snapkv/aware 100000 tokens"], [])


async def test_a_cap_that_keeps_the_short_bins_whole_is_named_with_them(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = counted(tmp_path, url)
        await run(settings, options=SweepOptions(quiet=True, limit=1))
        ends = query(settings, "SELECT bin_idx, max(token_len) FROM manifest_entries GROUP BY 1 ORDER BY 1")
        assert ends[0][1] < ends[1][1]
        capped = counted(tmp_path, url, f"kv.levels=[{{budget: 1.0}}, {{budget: {ends[0][1]}, unit: tokens}}]")
        _, notes, _ = await dry(capped)
    assert notes == [f"snapkv/aware {ends[0][1]} tokens keeps every prompt of length bin 0 whole: there it is full "
                     "cache"]  # fmt: skip


@pytest.mark.parametrize(("rounding", "kept"), [("up", 256), ("down", 240), ("nearest", 256)])
def test_what_is_sent_is_whole_blocks(rounding: str, kept: int) -> None:
    from kvt_async.engine.request.kv_evidence import expectation, read_evidence
    from kvt_async.engine.request.kv_fields import PromptSize, kv_fields

    level = levels_of("kv.unit=tokens", "kv.budgets=[250]", "kv.evidence={configured: true}", "kv.control_repeats=0",
                 BLOCKS.replace("round_to: 16", f"round_to: 16, rounding: {rounding}")).levels[0]  # fmt: skip
    assert kv_fields(level, PromptSize(1000)) == {"kv": {"budget": kept}}
    evidence, effective = read_evidence(expectation(level, 1000), {}, {})
    assert (evidence["requested"], evidence["rounded"], effective) == (250.0, float(kept), float(kept))


async def test_full_cache_under_other_restrictions_keeps_the_same_tokens_and_is_another_level(tmp_path: Path) -> None:
    body = "kv.apply={via: body, body: {kv: {budget: '{budget}'}, cache: '{params.cache}'}}"
    async with serving(Script()) as (server, url):
        settings = counted(tmp_path, url, body, "kv.constrained.params={cache: off}", "kv.params={cache: off}",
                           "kv.budgets=[1.0, 0.5]", "kv.control_repeats=0")  # fmt: skip
        assert (await dry(settings))[0] == ["full", "constrained full", "snapkv/aware cache=false 0.5"]
        assert (await run(settings, options=QUIET)).exit_code == 0
        sent = [(body.get("kv", {}).get("budget"), body.get("cache")) for body in server.bodies]
        assert {kind: sent.count(kind) for kind in set(sent)}[1.0, False] == 6  # no canary asks at it
        assert (await run(settings, options=QUIET)).session_id is None
