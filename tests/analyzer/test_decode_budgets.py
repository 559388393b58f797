"""What is said of budgets that apply while answers are generated, from a sweep over HTTP to the first screen."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.read.group_connection import open_group
from analyzer.report.answers import first_screen
from analyzer.report.figures_json import figures
from analyzer.report.suite_answers import suite_screen
from analyzer.results.decode_words import decode_levels, decode_table, no_evidence
from analyzer.results.results import Results, read_tasks
from analyzer.results.suite_results import SuiteResults, read_suite
from analyzer.stages import analyze_stage, score_stage
from analyzer.stats.transition import BudgetTest, claims
from analyzer.summarise.decode_evidence import with_evidence
from kvt_async.contract.errors import ContradictedError
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.shard import Shard
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.decoding_server import decoding
from tests.worlds import db_of, query, sweep_settings

QUIET = SweepOptions(quiet=True, allow_dead_knob=True)
N = 40
LEVELS = "kv.levels=[{budget: 1.0, unit: fraction}, {budget: 200}, {budget: 60}]"
LONG, SHORT = 64, 10


def number_of(prompt: str) -> int:
    return int(prompt.partition("Fact ")[2].partition(":")[0] or 0)


def half(prompt: str) -> int:
    """Every other answer is long."""
    return LONG if number_of(prompt) % 2 else SHORT


def settings_of(folder: Path, url: str, *overrides: str) -> Settings:
    rows = [
        {
            "example_id": f"e{i}",
            "context": f"Fact {i}: " + "word " * 30,
            "question": "Which?",
            "answers": [f"fact{i}end"],
        }
        for i in range(N)
    ]
    (folder / "examples.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return sweep_settings(
        folder,
        url,
        *("kv.when=decode", "kv.unit=tokens", "kv.params={compression_interval: 16}", LEVELS),
        *("decoding.max_tokens=64", "binning.n_bins=1", "kv.control_repeats=0", "analysis.resamples=100"),
        *("analysis.margin=0.3", "analysis.charts=false", "dataset.params={metric: string_match_part}"),
        *overrides,
        n=N,
    )


async def analysed(
    folder: Path,
    length: Callable[[str], int],
    *overrides: str,
    is_hurt: Callable[[str], bool] = lambda _: False,
    knob: str = "works",
    shards: Sequence[Shard | None] = (None,),
    says: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Settings:
    async with decoding(knob, length, is_hurt, says) as url:
        settings = settings_of(folder, url, *overrides)
        for shard in shards:
            await run(settings, options=replace(QUIET, shard=shard))
    score_stage(settings)
    analyze_stage(settings)
    return settings


def results_of(settings: Settings) -> Results:
    with closing(open_group(db_of(settings))) as conn:
        return read_tasks(conn, "g")[0]


async def test_a_budget_that_reaches_half_of_the_answers_says_so_and_one_that_reaches_none_has_no_evidence(
    tmp_path: Path,
) -> None:
    settings = await analysed(tmp_path, half, is_hurt=lambda prompt: number_of(prompt) % 4 == 1)
    rows = dict(query(settings, "SELECT kv_budget, status || '|' || reason FROM run_evidence JOIN runs USING (run_id)"))
    assert rows[200] == "unverified|no evidence: the cache was compressed in 0 of 40 answers (0%), fewer than 20%"
    assert rows[60] == (
        "verified|20 responses say that 60 tokens was applied, as asked (echoed); the cache was compressed in 20 of 40 "
        "answers (50%)"
    )
    results = results_of(settings)
    screen = first_screen(results, settings)
    (alarm,) = [alarm for alarm in screen.alarms if alarm.name == "NO EVIDENCE"]
    assert "in 0 of 40 answers (0%) with 200 tokens kept" in alarm.says
    assert "60 tokens" not in alarm.says
    assert [line for line in screen.caveats if "reached 50% of them" in line]
    assert any("compressed in 0 of 40 answers (0%) with 200" in line for a in screen.answers for line in a.lines)

    _, level = decode_levels(results)
    assert (level.said, level.applied, level.share, level.shown) == (40, 20, 0.5, True)
    # Ten of forty answers are lost, all of them among the twenty that were compressed.
    assert level.of_applied is not None
    assert level.of_reached == level.of_applied
    assert [level.of_applied[name] for name in ("n", "contexts", "drop")] == [20, 20, 0.5]
    drop = next(d for d in results.drops if d.kv_budget == 60)
    assert drop.drop_mean == 0.25
    # At full cache the longest answers hold the prompt and 63 tokens more; here at most the cap and 16.
    ((full, here),) = query(
        settings,
        "SELECT avg(CASE WHEN is_full THEN peak END), avg(CASE WHEN kv_budget = 60 THEN peak END) FROM (SELECT u.*, "
        "json_extract(usage_json, '$.kv.peak_tokens') AS peak FROM responses JOIN requests USING (request_id) "
        "JOIN runs u USING (run_id))",
    )
    assert level.peak is not None
    assert (level.peak["full"], level.peak["here"]) == pytest.approx((full, here), abs=1e-3)
    assert level.peak["ratio"] == pytest.approx(here / full)
    assert decode_table(results).rows[1][2] == "20 of 40 (50%)"
    in_json = {level["kv_budget"]: level for level in figures(results, settings)["levels"] if not level["is_full"]}
    assert in_json[60]["while_generating"]["share"] == 0.5
    assert in_json[200]["while_generating"]["shown"] is False


async def test_policies_that_were_felt_alike_share_a_sentence(tmp_path: Path) -> None:
    two = "kv.policies=[full, snapkv, random]"
    settings = await analysed(tmp_path, lambda _: SHORT, "kv.levels=null", two, "kv.budgets=[200]")
    assert no_evidence(results_of(settings)) == (
        "while answers were generated, at SnapKV (evicts every 16 answer tokens) and Random eviction (evicts every 16 "
        "answer tokens) the cache was compressed in 0 of 40 answers (0%) with 200 tokens kept"
    )


async def test_a_level_without_evidence_is_never_the_safe_one(tmp_path: Path) -> None:
    """Nothing is lost with 200 tokens, which hardly count, for the cache was never compressed; all is lost with 60.

    The answers lie in two shards.
    """
    shards = [Shard(1, 2), Shard(2, 2)]
    settings = await analysed(tmp_path, lambda _: LONG, is_hurt=lambda _: True, shards=shards)
    assert [(level.said, level.applied) for level in decode_levels(results_of(settings))] == [(N, 0), (N, N)]
    verdict = results_of(settings).verdict("snapkv/aware/decode compression_interval=16")
    assert verdict is not None
    assert (verdict.verdict, verdict.safe_budget, verdict.broken) == ("transition", None, 60)
    assert verdict.evidence == "verified"  # of the level that something is claimed of


async def test_where_no_budget_reaches_an_answer_nothing_is_claimed(tmp_path: Path) -> None:
    settings = await analysed(tmp_path, lambda _: SHORT)
    results = results_of(settings)
    for bin_idx in (-1, 0):
        verdict = results.verdict(results.series[0], bin_idx)
        assert verdict is not None
        assert (verdict.verdict, verdict.safe_budget, verdict.evidence) == ("unverified", None, "unverified")
    screen = first_screen(results, settings)
    assert (
        "no evidence: while answers were generated, the cache was compressed in none of 40 answers at any budget"
        in screen.headline
    )
    assert "safe" not in screen.headline
    assert any(alarm.name == "NO EVIDENCE" for alarm in screen.alarms)


async def test_a_loss_of_the_prompt_is_told_where_the_budget_reaches_no_answer_but_nothing_is_safe(
    tmp_path: Path,
) -> None:
    """`both` compresses the prompt to 30 tokens; no answer is long enough for more."""
    levels = "kv.levels=[{budget: 1.0, unit: fraction}, {budget: 300}, {budget: 20}]"
    settings = await analysed(tmp_path, lambda _: SHORT, levels, "kv.when=both")
    rows = dict(query(settings, "SELECT kv_budget, status FROM run_evidence JOIN runs USING (run_id)"))
    assert (rows[300], rows[20]) == ("unverified", "unverified")
    verdict = results_of(settings).verdict("snapkv/aware/both compression_interval=16")
    assert verdict is not None
    assert (verdict.verdict, verdict.safe_budget) == ("cannot_tell", None)  # nothing is lost here, and nothing safe


async def test_a_server_that_says_nothing_of_compressions_is_unverified(tmp_path: Path) -> None:
    levels = "kv.levels=[{budget: 1.0, unit: fraction}, {budget: 0.5, unit: fraction}, {budget: 60}]"
    settings = await analysed(tmp_path, lambda _: LONG, levels, knob="mute", is_hurt=lambda _: True)
    screen = first_screen(results_of(settings), settings)
    assert screen.headline.startswith("Unverified, ")
    assert any("replies don't say how often the cache was compressed" in a.claim for a in screen.answers)
    first, second = results_of(settings).series  # one policy in two units is two curves
    assert (second, "6000%" in str(screen)) == (f"{first} unit=tokens", False)
    assert any("broken from 60 tokens down" in line for a in screen.answers for line in a.lines)


def of_full(kv: dict[str, Any]) -> dict[str, Any]:
    """No counts at full cache, where counts belong."""
    odd = {"peak_tokens": "many", "kept_tokens": [1], "bytes": True, "compressible_tokens": 1e300}
    return kv | odd if kv["when"] == "prefill" else kv


async def test_what_is_no_count_in_a_reply_is_not_counted(tmp_path: Path) -> None:
    settings = await analysed(tmp_path, lambda _: LONG, is_hurt=lambda _: True, says=of_full)
    level = decode_levels(results_of(settings))[1]
    assert level.peak is not None
    # Nobody says what full cache held: it holds the prompt and all of the answer but its last token.
    ((full,),) = query(
        settings,
        "SELECT avg(prompt_tokens + completion_tokens - 1) FROM telemetry JOIN requests USING (request_id) "
        "JOIN runs USING (run_id) WHERE is_full",
    )
    assert level.peak["full"] == pytest.approx(full, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "words"), [("kept_tokens", "are left at the end of"), ("peak_tokens", "were held during")]
)
async def test_more_than_a_budget_and_an_interval_contradict_it(tmp_path: Path, name: str, words: str) -> None:
    """60 tokens right after every compression, as asked, and 16 between two of them are 76."""
    with pytest.raises(ContradictedError) as caught:
        await analysed(tmp_path, lambda _: LONG, says=lambda kv: kv | {name: 90} if kv["when"] == "decode" else kv)
    assert any(f"90 tokens {words} one of them, and at most 76 can be" in line for line in caught.value.details)


async def test_compressions_of_which_few_say_what_was_left_are_unverified(tmp_path: Path) -> None:
    asked: list[str] = []

    def says(kv: dict[str, Any]) -> dict[str, Any]:
        asked.append(kv["when"])
        return kv | {"compressed_tokens": None} if kv["when"] == "decode" and len(asked) % 4 else kv

    settings = await analysed(tmp_path, lambda _: LONG, says=says)
    rows = dict(query(settings, "SELECT kv_budget, status || '|' || reason FROM run_evidence JOIN runs USING (run_id)"))
    assert rows[60].startswith("unverified|the cache was compressed in 40 answers, and ")


async def test_a_cap_above_the_prompt_that_applies_at_both_times_keeps_the_whole_prompt(tmp_path: Path) -> None:
    settings = await analysed(tmp_path, lambda _: LONG, "kv.when=both")
    rows = dict(query(settings, "SELECT kv_budget, status || '|' || reason FROM run_evidence JOIN runs USING (run_id)"))
    assert rows[60].startswith("verified|")
    assert rows[200] == "unverified|no evidence: the cache was compressed in 0 of 40 answers (0%), fewer than 20%"


async def test_one_task_of_short_answers_leaves_a_suite_without_evidence_and_names_it(tmp_path: Path) -> None:
    tasks = [
        {"name": name, "dataset": {"name": "jsonl", "task": name, "path": str(tmp_path / f"{name}.jsonl"),
                                   "params": {"metric": "string_match_part"}}}
        for name in ("long", "short")
    ]  # fmt: skip
    for at, name in enumerate(("long", "short")):
        rows = [
            {"example_id": f"{name}{i}", "context": f"Fact {2 * i + 1 - at}: {name} " + "word " * 30,
             "question": "Which?", "answers": [f"fact{2 * i + 1 - at}end"]}
            for i in range(N)
        ]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    settings = await analysed(tmp_path, half, f"tasks={orjson.dumps(tasks).decode()}", "analysis.guard=0.5")
    with closing(connect_for_reading(db_of(settings))) as conn:
        suite: SuiteResults = read_suite(conn, "g")
    (verdict,) = suite.verdicts
    assert (verdict.verdict, verdict.suite_safe) == ("unverified", None)
    screen = suite_screen(suite, settings)
    assert (
        "no evidence over 2 tasks: while they were generated, the cache of hardly any answer of short"
        in screen.headline
    )


@given(st.lists(st.tuples(st.sampled_from([0.0001, 0.5]), st.booleans()), max_size=6))
def test_safe_ends_at_a_level_that_was_shown_and_what_is_proven_below_stays(levels: list[tuple[float, bool]]) -> None:
    tests = [
        BudgetTest(100.0 - n, f"r{n}", 50, 50, 0.0, -0.1, 0.1, 0.0, 0, 0, p_safe=p, p_loss=1.0, p_broken=1.0)
        for n, (p, _) in enumerate(levels)
    ]
    before = claims(tests, 0.025)
    after = with_evidence(before, tests, [shown for _, shown in levels])
    assert after.n_safe <= before.n_safe
    if after.n_safe:
        assert levels[after.n_safe - 1][1]
        assert after.safe == tests[after.n_safe - 1].budget
    assert not any(shown for _, shown in levels[after.n_safe : before.n_safe])
