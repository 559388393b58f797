"""Evidence that a server gives of itself: a metric's value or label, or a line of the log of its launch."""

import sys
from pathlib import Path

import orjson
import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.data_types import number_of
from kvt_async.contract.settings import Settings
from kvt_async.engine.request.kv_evidence import read_evidence
from kvt_async.session.server_evidence import from_json, from_log, from_metrics
from kvt_async.sweep.sweep import SweepOptions, run
from tests.worlds import query, sweep_settings

PAGE = """# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="fp8_e4m3",engine="0"} 1.0
# TYPE kv_kept_tokens_total counter
kv_kept_tokens_total{policy="snap kv, \\"x\\""} 12
kv_kept_tokens_total{policy="full"} 30
"""
SERVER = f"{sys.executable} -m kvt_async.serve --port {{port}}"


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("vllm:cache_config_info.cache_dtype", "fp8_e4m3"),
        ('vllm:cache_config_info{engine="0"}.block_size', "16"),
        ('kv_kept_tokens_total{policy="full"}', "30.0"),
        ("vllm:cache_config_info.none_such", None),
        ("no_such_metric", None),
        ('kv_kept_tokens_total{policy="other"}', None),
    ],
)
def test_a_sample_or_one_of_its_labels_is_read_from_a_metrics_page(metric: str, expected: str | None) -> None:
    assert from_metrics(PAGE, metric) == expected


def test_a_page_that_is_none_shows_nothing() -> None:
    assert from_metrics("<html>{not a page", "x") is None


def test_the_last_match_in_a_log_counts_because_restarts_continue_it() -> None:
    assert from_log("type_k = 'f16'\nready\ntype_k = 'q8_0'\n", r"type_k = '(\w+)'").raw == "q8_0"
    assert from_log("", "(x)").raw is None


@pytest.mark.parametrize(
    ("value", "bits"),
    [("torch.bfloat16", 16), ("fp8_e5m2", 8), ("q8_0", 8.5), ("0.25", 0.25), ("auto", None), (None, None)],
)
def test_a_dtype_reads_as_its_bits_and_auto_as_nothing(value: str | None, bits: float | None) -> None:
    assert number_of(value) == bits


def test_what_a_server_said_of_itself_is_every_replys_evidence() -> None:
    expects = {"requested": 8.0, "unit": "bits", "evidence": {"metric": "m.dtype"}}
    said = {"source": "metric", "read_from": "metric m.dtype", "raw": "fp8", "value": 8.0}
    found, effective = read_evidence({**expects, "server": said}, {}, {})
    assert (found["source"], found["said"], effective) == ("metric", "fp8", 8.0)
    found, effective = read_evidence({**expects, "server": {**said, "raw": "auto", "value": None}}, {}, {})
    assert (found["source"], found["missing"], effective) == ("none", "metric m.dtype", None)


def test_a_header_may_name_a_data_type_and_a_name_without_a_width_is_kept() -> None:
    expects = {"requested": 4.0, "unit": "bits", "evidence": {"header": "X-KV"}}
    found, effective = read_evidence(expects, {}, {"x-kv": "nvfp4"})
    assert (found["said"], found["source"], effective) == ("nvfp4", "echoed", 4.0)  # asked for by its payload
    found, effective = read_evidence({**expects, "requested": 5.0}, {}, {"x-kv": "nvfp4"})
    assert effective == 4.5
    found, effective = read_evidence(expects, {}, {"x-kv": "kvarn_k4v2_g128"})
    assert (found["said"], found["source"], effective) == ("kvarn_k4v2_g128", "none", None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a.b", "1.5"), ("list.1.x", "yes"), ("general.kv.type", "q8_0"), ("flag", "true"), ("list.2", None), ("a", None)],
)
def test_an_entry_of_a_json_page_is_found_by_its_dotted_path(path: str, expected: str | None) -> None:
    page = {"a": {"b": 1.5}, "list": [0, {"x": "yes"}], "general.kv": {"type": "q8_0"}, "flag": True}
    reading = from_json(page, path)
    assert (reading.raw, bool(reading.why)) == (expected, expected is None)


def test_several_places_for_one_budget_and_pages_with_a_password_are_refused(tmp_path: Path) -> None:
    for evidence, match in (
        ("{metric: x, log: '(x)'}", "metric and log are given"),
        ("{json: {url: 'http://me:secret@host/x', path: a}}", "no user, password or fragment"),
        ("{json: {url: server_info, path: a}}", "http://HOST:PORT"),
    ):
        with pytest.raises(ConfigError, match=match) as caught:
            launching(tmp_path, SERVER, evidence)
        assert "secret" not in str(caught.value)


def launching(folder: Path, command: str, evidence: str) -> Settings:
    each = (f"{{policy: kv_dtype, budget: {b}, unit: bits, params: {{dtype: f{b}}}}}" for b in (32, 16))
    levels = ", ".join(each)
    return sweep_settings(
        folder, "http://127.0.0.1:0/v1", f"kv.apply={{via: launch, command: {command!r}, grace_s: 2}}",
        f"kv.levels=[{levels}]", f"kv.evidence={evidence}", "kv.control_repeats=0", n=4,
    )  # fmt: skip


def shown(settings: Settings) -> list[tuple[float, float, str]]:
    return query(settings, "SELECT DISTINCT kv_budget, kv_effective, json_extract(kv_evidence_json, '$.source') "
                           "FROM responses JOIN requests USING (request_id) JOIN runs USING (run_id) "
                           "ORDER BY kv_budget DESC")  # fmt: skip


async def test_the_metrics_page_verifies_one_launched_level_and_contradicts_another(tmp_path: Path) -> None:
    settings = launching(tmp_path, SERVER, "{metric: 'vllm:cache_config_info.cache_dtype'}")
    assert (await run(settings, options=SweepOptions(quiet=True))).exit_code == 0
    assert shown(settings) == [(32.0, 32.0, "metric"), (16.0, 32.0, "metric")]


async def test_a_line_of_the_launch_log_is_evidence(tmp_path: Path) -> None:
    command = f'sh -c "echo kv_dtype={{params.dtype}}; exec {SERVER}"'
    settings = launching(tmp_path, command, r"{log: 'kv_dtype=(\w+)'}")
    assert (await run(settings, options=SweepOptions(quiet=True))).exit_code == 0
    assert shown(settings) == [(32.0, 32.0, "log"), (16.0, 16.0, "log")]


async def test_a_metric_that_is_not_there_leaves_the_budget_unverified_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = launching(tmp_path, SERVER, "{metric: no_such_metric}")
    assert (await run(settings, options=SweepOptions(quiet=True))).exit_code == 0
    assert "shows no budget: it stays unverified" in capsys.readouterr().err
    stored = query(settings, "SELECT kv_effective, kv_evidence_json FROM responses")
    missing = {(effective, orjson.loads(text)["missing"]) for effective, text in stored}
    assert missing == {(None, "metric no_such_metric")}


@pytest.mark.parametrize(
    ("evidence", "match"),
    [("{metric: 'a b'}", "no sample"), ("{log: '('}", "regular expression"), ("{log: 'x'}", "0 groups")],
)
async def test_evidence_that_cannot_be_read_is_refused_before_anything_starts(
    tmp_path: Path, evidence: str, match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        await run(launching(tmp_path, SERVER, evidence), options=SweepOptions(quiet=True))


async def test_bytes_per_token_are_refused_where_tokens_are_evicted(tmp_path: Path) -> None:
    evidence = "kv.evidence={bytes_per_token: {memory: {value: 1}, tokens: {value: 1}}}"
    with pytest.raises(ConfigError, match=r"bytes per token show bit widths, and snapkv/aware 0\.5"):
        await run(sweep_settings(tmp_path, "http://127.0.0.1:1/v1", evidence), options=SweepOptions(quiet=True))


def test_a_quantity_stands_at_one_place(tmp_path: Path) -> None:
    evidence = "{bytes_per_token: {memory: {metric: a, log: b}, tokens: {value: 1}}}"
    with pytest.raises(ConfigError, match="give one of value, metric, log and json"):
        launching(tmp_path, SERVER, evidence)
