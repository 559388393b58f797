"""What a sweep says of budgets that apply while answers are generated, before anything is sent."""

from pathlib import Path

import pytest

from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.worlds import sweep_settings


@pytest.mark.parametrize(
    ("levels", "most", "words"),
    [
        (
            "{budget: 96, unit: tokens, when: decode, params: {compression_interval: 16}}",
            40,
            "a budget of 96 tokens with an interval of 16 can't trigger: answers have at most 40 tokens, and it takes "
            "more than 48",
        ),
        (
            "{budget: 96, unit: tokens, when: decode, params: {compression_interval: 16}}",
            64,
            "a budget of 96 tokens with an interval of 16 is felt by answers of more than 48 to 64 tokens, and they "
            "have at most 64; 2 of 8 prompts leave room for that",
        ),
        (
            "{budget: 0.5, when: decode}",
            512,
            "a budget of 0.5 with an interval of 512 (the usual one; kv.params.compression_interval sets it) can't "
            "trigger: answers have at most 512 tokens",
        ),
        (
            "{budget: 10, unit: tokens, when: both, params: {compression_interval: 8}}",
            100,
            "a budget of 10 tokens with an interval of 8 is felt by answers of more than 8 tokens, and they have at "
            "most 100",
        ),
    ],
)
async def test_a_dry_run_says_from_which_answers_on_a_budget_is_felt_and_whether_any_gets_there(
    tmp_path: Path, levels: str, most: int, words: str
) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(
            tmp_path, url, f"kv.levels=[{{budget: 1.0}}, {levels}]", f"decoding.max_tokens={most}", n=8
        )
        report = await run(settings, options=SweepOptions(quiet=True, dry_run=True))
    assert report.plan is not None
    (note,) = (note for note in report.plan["notes"] if "an interval of" in note)
    assert words in note
    assert server.bodies == []


async def test_series_that_are_felt_alike_share_a_note(tmp_path: Path) -> None:
    levels = [f"{{policy: {policy}, budget: {cap}}}" for policy in ("snapkv", "random") for cap in (96, 64)]
    async with serving(Script()) as (_, url):
        settings = sweep_settings(
            tmp_path, url, f"kv.levels=[{{policy: full}}, {', '.join(levels)}]", "kv.unit=tokens", "kv.when=decode",
            "kv.params={compression_interval: 16}", n=8,
        )  # fmt: skip
        report = await run(settings, options=SweepOptions(quiet=True, dry_run=True))
    assert report.plan is not None
    notes = [note.partition(": a budget of ") for note in report.plan["notes"] if "an interval of" in note]
    series = "snapkv/aware/decode compression_interval=16, random/aware/decode compression_interval=16"
    assert [head for head, _, _ in notes] == [series] * 2
    assert [rest[:9] for _, _, rest in notes] == ["96 tokens", "64 tokens"]


async def test_nothing_is_said_of_budgets_that_apply_once_the_prompt_is_read(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        report = await run(sweep_settings(tmp_path, url), options=SweepOptions(quiet=True, dry_run=True))
    assert report.plan is not None
    assert report.plan["notes"] == []
