"""The server that answers must be the one that answered before: another one is refused, or marked, never mixed in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import DriftError
from kvt_async.contract.formulas.server_identity import Snapshot, between, drift, drifts
from kvt_async.session.metrics_page import prefix_hits, read
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.worlds import check_invariants, query, sweep_settings

QUIET = SweepOptions(quiet=True)
CACHE = {
    "block_size": "16", "cache_dtype": "fp8", "num_gpu_blocks": "27000", "gpu_memory_utilization": "0.9",
    "kv_cache_memory_bytes": "None", "enable_prefix_caching": "False",
}  # fmt: skip
IDENTITY = {"models": ["a"], "version": {"version": "1.0", "uptime_s": 3.0}, "cache_config": CACHE, "metrics": {"x": 1}}


def changed(**parts: object) -> list[str]:
    return drift(IDENTITY, {**IDENTITY, **parts}, "a")


def test_another_version_model_or_cache_is_a_drift_and_named_with_both_values() -> None:
    assert changed(version={"version": "1.1", "uptime_s": 3.0}) == [
        "the server's version changed from version=1.0 to version=1.1"
    ]
    assert changed(models=["b"]) == ["the server's model changed from a to b"]
    assert changed(cache_config={**CACHE, "cache_dtype": "auto"}) == [
        "the server's cache_config changed from cache_dtype=fp8 to cache_dtype=auto"
    ]


@pytest.mark.parametrize(
    "parts",
    [
        {"version": {"version": "1.0", "uptime_s": 999.0}},
        {"cache_config": {**CACHE, "num_gpu_blocks": "26991", "kv_cache_memory_bytes": "12"}},
        {"metrics": {"x": 2}},
        {"evidence": {"r": {}}},
        {"models": ["a"], "version": {"uptime_s": 0.0, "version": "1.0"}},
    ],
)
def test_what_counts_ages_or_is_sized_by_free_memory_is_no_drift(parts: dict[str, Any]) -> None:
    assert changed(**parts) == []


def test_what_one_side_does_not_know_is_no_drift_but_is_not_forgotten() -> None:
    assert drift(IDENTITY, {"unreachable": True}, "a") == []
    taken: list[dict[str, Any]] = [IDENTITY, {"unreachable": True}, {**IDENTITY, "models": ["b"]}]
    found = drifts(Snapshot("k", f"s{n}", one, "a") for n, one in enumerate(taken))
    assert [(one.session_id, one.key) for one in found] == [("s2", "k")]


@given(st.lists(st.sampled_from("bcde")), st.lists(st.sampled_from("bcde")))
def test_other_models_that_are_listed_beside_ours_are_no_drift(before: list[str], now: list[str]) -> None:
    assert drift({"models": ["a", *before]}, {"models": [*now, "a"]}, "a") == []


@pytest.mark.parametrize(
    ("before", "now", "n"),
    [
        (["a"], ["b"], 1),  # ours is gone, another one is there
        (["x"], ["y"], 1),  # a server of one model that takes any name
        (["x"], ["x", "y"], 0),  # which of them serves us can't be told
        (["x", "y"], ["x", "z"], 0),  # an alias of a hosted catalogue
        (["a"], [], 0),
    ],
)
def test_the_listed_model_that_serves_us_is_the_identity(before: list[str], now: list[str], n: int) -> None:
    assert len(drift({"models": before}, {"models": now}, "a")) == n


def test_what_the_list_says_of_our_model_is_part_of_its_identity() -> None:
    found = drift({"entry": {"root": "/w/a"}}, {"entry": {"root": "/w/a2"}}, "a")
    assert found == ["the server's entry changed from root=/w/a to root=/w/a2"]


def test_levels_that_have_a_server_each_must_be_served_by_one_program() -> None:
    """A level is made by its cache's data type and paths differ from host to host: those are no difference."""

    def server(level: str, version: str, **model: str) -> Snapshot:
        identity = {"models": ["a"], "version": {"version": version}, "model": {"model_path": f"/{level}/a", **model}}
        return Snapshot(level, "s", {**identity, "cache_config": {"cache_dtype": level}}, "a")

    assert between([server("full", "1.0"), server("fp8", "1.0"), server("fp8", "1.0")]) == []
    (found,) = between([server("full", "1.0"), server("fp8", "1.0"), server("int4", "2.0")])
    assert (found.key, found.what) == (
        "int4", "the server's version differs from version=1.0 to version=2.0 (full and int4)",
    )  # fmt: skip
    assert len(between([server("full", "1.0", chat_template="x"), server("fp8", "1.0", chat_template="y")])) == 1


async def test_another_server_is_refused_before_anything_is_sent_to_it(tmp_path: Path) -> None:
    script = Script()
    async with serving(script) as (server, url):
        await run(sweep_settings(tmp_path, url), options=replace(QUIET, limit=1))
        sent, script.version = len(server.bodies), "2.0"
        with pytest.raises(DriftError, match=r"from version=1\.0 to version=2\.0") as caught:
            await run(sweep_settings(tmp_path, url), options=QUIET)
        assert len(server.bodies) == sent
        script.version = "1.0"  # the old one is back
        assert (await run(sweep_settings(tmp_path, url), options=QUIET)).responses == 48
    assert caught.value.exit_code == 3
    assert "--force" in str(caught.value)
    assert query(sweep_settings(tmp_path, url), "SELECT exit_code, reason FROM session_ends ORDER BY ended_at") == [
        (0, "finished"), (3, "refused"), (0, "finished"),
    ]  # fmt: skip


async def test_the_same_server_at_another_address_is_the_same_server_and_another_one_there_is_not(
    tmp_path: Path,
) -> None:
    async with serving(Script()) as (_, url):
        await run(sweep_settings(tmp_path, url), options=replace(QUIET, limit=1))
    async with serving(Script(version="2.0")) as (_, url):
        with pytest.raises(DriftError):
            await run(sweep_settings(tmp_path, url), options=QUIET)
    async with serving(Script()) as (_, url):
        assert (await run(sweep_settings(tmp_path, url), options=QUIET)).exit_code == 0


async def test_force_starts_a_new_generation_beside_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script()
    async with serving(script) as (_, url):
        settings = sweep_settings(tmp_path, url)
        await run(settings, options=replace(QUIET, limit=1))
        script.version = "2.0"
        report = await run(settings, options=replace(QUIET, force=True))
    assert (report.generation, report.responses, report.exit_code) == (2, 48, 0)
    assert "a new generation beside the old one" in capsys.readouterr().err
    by_generation = query(settings, "SELECT generation, count(*) FROM responses JOIN requests USING (request_id) "
                                    "JOIN runs USING (run_id) GROUP BY 1")  # fmt: skip
    assert by_generation == [(1, 8), (2, 48)]
    check_invariants(settings)


async def test_a_server_that_becomes_another_one_during_a_session_is_said_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(renamed_after=(20, "2.0"))) as (_, url):
        settings = sweep_settings(tmp_path, url)
        report = await run(settings, options=QUIET)
    assert report.exit_code == 0
    assert "version=1.0 to version=2.0 during the session: analyze will refuse" in capsys.readouterr().err
    assert any("during the session" in note for note in report.notes)
    rows = query(settings, "SELECT session_id, phase, identity_json FROM server_snapshots ORDER BY taken_at, n")
    assert [row[1] for row in rows] == ["start", "end"]
    found = drifts(Snapshot("k", row[0], orjson.loads(row[2]), "reference") for row in rows)
    assert [one.session_id for one in found] == [report.session_id]


async def test_replicas_of_a_level_that_are_not_one_server_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script()) as (_, a), serving(Script(version="2.0")) as (_, b):
        both = f"kv.apply={{via: endpoint, endpoints: {{full: ['{a}', '{b}']}}}}"
        settings = sweep_settings(tmp_path, a, both, "kv.budgets=[1.0]", "kv.evidence={}")
        await run(settings, options=QUIET)
    assert "one level is served by two servers" in capsys.readouterr().err


# ---- prefix cache


async def test_hits_of_a_prefix_cache_between_start_and_end_are_flagged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (
        'vllm:prefix_cache_queries_total{engine="0"} N_REQUESTS0\nvllm:prefix_cache_hits_total{engine="0"} N_REQUESTS\n'
    )
    async with serving(Script(metrics=page)) as (server, url):
        report = await run(sweep_settings(tmp_path, url), options=QUIET)
        n = len(server.bodies)  # the canary is counted too: it may fill the cache
    said = [note for note in report.notes if "prefix cache" in note]
    assert said == [f"{n} of {n * 10} prompt tokens came from the prefix cache of {url}: compare latencies within one "
                    "cache state only"]  # fmt: skip
    assert said[0] in capsys.readouterr().err


async def test_a_prefix_cache_without_hits_is_not_flagged(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):  # its counter stands still
        report = await run(sweep_settings(tmp_path, url), options=QUIET)
    assert [note for note in report.notes if "prefix cache" in note] == []


def test_counters_are_summed_over_engines_and_a_restart_counts_from_zero() -> None:
    def load(*values: int) -> dict[str, float]:
        page = "# TYPE vllm:prefix_cache_hits counter\n" + "".join(
            f'vllm:prefix_cache_hits_total{{engine="{n}"}} {value}\n' for n, value in enumerate(values)
        )
        return read(page).about_load()

    assert prefix_hits(load(5, 7), load(9, 10)) == {"hits": 7.0, "queries": 0.0}
    assert prefix_hits(load(50), load(4)) == {"hits": 4.0, "queries": 0.0}
    assert prefix_hits({}, {"requests_total": 3.0}) is None


def test_a_page_is_read_as_prometheus_text_with_its_escapes_and_a_foreign_one_as_nothing() -> None:
    page = read('# HELP a b\n# TYPE a gauge\na{p="x \\"y\\", z"} 1e3 1700000000\nvllm:cache_config_info{d="fp8"} 1\n')
    assert page.find("a", {"p": 'x "y", z'}).value == 1000.0  # type: ignore[union-attr]
    assert page.cache_config() == {"d": "fp8"}
    assert read("<html>{not a page").samples == []
