"""What an analysis says of conversations that were sent turn by turn, and what `kvt verify` and `kvt show` see."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import polars as pl

from analyzer.read.outcomes import export_rows
from analyzer.report.turn_tables import by_turn, reuse_caveats
from analyzer.results.results import Results, read_results
from analyzer.stages import analyze_stage, report_stage, score_stage
from analyzer.verbs.show import show
from analyzer.verify.integrity import check_facts
from kvt_async.contract.paths import run_paths
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.worlds import db_of, query, sweep_settings

QUIET = SweepOptions(quiet=True)
OWN, TURNS = "workload.history=own", "workload.reuse=turns"


def settings_for(folder: Path, url: str, *overrides: str) -> Settings:
    rows = []
    for c in range(4):
        asked = [{"question": f"Question {c}.{k}?", "answers": [f"golden {c}.{k}"]} for k in range(3)]
        rows.append({"example_id": f"c{c}", "context": f"Talk {c}. " + "word " * 400, "conversation": asked})
    (folder / "examples.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    fast = ("analysis.charts=false", "analysis.resamples=100", "kv.control_repeats=0", "binning.n_bins=1")
    return sweep_settings(folder, url, "kv.budgets=[1.0, 0.5]", "decoding.max_tokens=7", *fast, *overrides)


def analysed(settings: Settings) -> Results:
    score_stage(settings)
    analyze_stage(settings)
    with closing(connect_for_reading(db_of(settings))) as conn:
        return read_results(conn, "g", volumes=True)


def page(settings: Settings) -> str:
    report_stage(settings)
    return run_paths(settings.output.runs_dir, "g", settings.db.path).report_md.read_text("utf-8")


async def test_the_report_tells_accuracy_and_reuse_turn_by_turn_and_that_levels_were_reused_differently(
    tmp_path: Path,
) -> None:
    async with serving(Script(reuses_from=1.0)) as (_, url):
        settings = settings_for(tmp_path, url, OWN, TURNS)
        await run(settings, options=QUIET)
    results = analysed(settings)
    rows = by_turn(results).rows
    assert [row[:4] for row in rows] == [
        (level, turn, "4", "0") for level in ("full cache", "snapkv/aware 0.5") for turn in "012"
    ]
    assert [row[5] for row in rows if row[1] != "0"] == ["warm", "warm", "cold", "cold"]
    (caveat,) = reuse_caveats(results)
    assert caveat.startswith("Reuse between turns differs (full cache: warm; snapkv/aware 0.5: cold)")
    text = page(settings)
    assert "### Turn by turn" in text
    assert "own: what the same level answered" in text
    assert "turns: one conversation's turns in order" in text
    stored = query(
        settings, "SELECT DISTINCT turn_idx > 0, cache_state FROM requests JOIN responses USING (request_id)"
    )
    assert {(1, "warm"), (1, "cold")} <= set(stored)
    with closing(connect_for_reading(db_of(settings))) as conn:
        (exported,) = export_rows(conn, results.runs[0], "made")
    later = exported.filter(pl.col("turn_idx") > 0)
    assert exported["turn_idx"].to_list() == [0, 1, 2] * 4
    assert later["cache_state"].unique().to_list() == ["warm"]
    assert later["token_len"].null_count() == 8  # their prompts are not the manifest's


async def test_where_no_server_says_what_it_reused_that_is_said(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = settings_for(tmp_path, url, TURNS)
        await run(settings, options=QUIET)
    assert "reports no cached tokens" in reuse_caveats(analysed(settings))[0]
    assert query(settings, "SELECT DISTINCT cache_state FROM responses") == [(None,)]


async def test_a_conversation_is_one_cluster_with_or_without_a_context(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = settings_for(tmp_path, url)
        rows = [orjson.loads(line) for line in (tmp_path / "examples.jsonl").read_bytes().splitlines()]
        rows[0]["context"] = rows[1]["context"] = ""
        (tmp_path / "examples.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
        await run(settings, options=QUIET)
    results = analysed(settings)
    assert {(stat.n, stat.n_clusters) for (_, at), stat in results.stats.items() if at == -1} == {(12, 4)}


async def test_turns_that_were_not_sent_have_a_label_of_their_own_and_nothing_contradicts_itself(
    tmp_path: Path,
) -> None:
    async with serving(Script(too_long=2030)) as (_, url):
        settings = settings_for(tmp_path, url, OWN)
        await run(settings, options=QUIET)
    results = analysed(settings)
    labels = query(
        settings,
        "SELECT r.turn_idx, s.failure_label, count(*) FROM requests r JOIN scores s USING (request_id) "
        "WHERE r.turn_idx GROUP BY 1, 2",
    )
    assert labels == [(1, "CONTEXT_OVERFLOW", 8), (2, "EARLIER_TURN_FAILED", 8)]
    assert [row[3] for row in by_turn(results).rows] == ["0", "4", "4"] * 2
    assert "Earlier turn" in page(settings)
    with closing(connect_for_reading(db_of(settings))) as conn:
        assert check_facts(conn).differences == []


async def test_verify_makes_own_prompts_again_and_finds_an_answer_that_was_changed(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = settings_for(tmp_path, url, OWN, "kv.policies=[snapkv, truncate_prompt]")
        await run(settings, options=replace(QUIET, allow_dead_knob=True))
    with closing(sqlite3.connect(db_of(settings))) as conn:
        assert check_facts(conn).differences == []
        conn.execute("DROP TRIGGER responses_no_update")
        conn.execute("UPDATE responses SET text = 'another' WHERE request_id LIKE 'full-%:0'")
        wrong = [d for d in check_facts(conn).differences if d.column == "prompt_sha256"]
    assert len(wrong) == 2  # both later turns of that conversation at full cache


async def test_show_prints_a_conversation_in_order_with_what_each_level_was_sent(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = settings_for(tmp_path, url, OWN)
        await run(settings, options=QUIET)
    with closing(connect_for_reading(db_of(settings))) as conn:
        answer = show(conn, settings, "c1")
        (second,) = show(conn, settings, "c1.t1").examples
    assert [example.example_id for example in answer.examples] == ["c1", "c1.t1", "c1.t2"]
    first, _, last = answer.examples
    assert all(level.told is None for level in first.levels)
    for level in last.levels:
        own = [e.levels[last.levels.index(level)].text or "" for e in answer.examples[:2]]
        assert level.told == [text.strip() for text in own]
        assert any(f"sent, turn 1: {own[1].strip()}" in line for line in answer.lines)
    assert second == answer.examples[1]
