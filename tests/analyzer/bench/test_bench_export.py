"""`kvt bench export`: the files hold the figures that kvt itself says, in the shape that their readers expect."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from analyzer.bench.bench_analysis import bench_stages
from analyzer.bench.bench_export import ExportOrder, export_bench, metadata_of
from kvt_async.bench.cli import app
from kvt_async.contract.errors import ConfigError
from tests.analyzer.bench_rows import GROUP, Load, Sent, group

N, FAILED = 60, 5


@pytest.fixture
def answer(tmp_path: Path) -> dict[str, Any]:
    """Two rates, of which the second has failures; `folder` is the group's."""
    loads = [
        Load([Sent(i * 1000 / rate, ttft_ms=40 + (i * 7) % 97, itl_ms=5 + i % 3, tokens=4 + i % 5,
                   failed=rate == 4 and i < FAILED) for i in range(N)],
             label=f"rate {rate}/s", rate=float(rate), slo={"ttft_p99_ms": 100})
        for rate in (2, 4)
    ]  # fmt: skip
    return bench_stages(group(tmp_path, *loads), as_tool="vllm") | {"folder": tmp_path / f"runs/{GROUP}"}


def exported(answer: dict[str, Any], **wanted: Any) -> list[Path]:
    return [Path(file) for file in export_bench(str(answer["folder"]), ExportOrder(**wanted))["files"]]


def test_a_file_of_vllm_has_its_figures_and_the_lists_that_they_are_of(answer: dict[str, Any]) -> None:
    files = exported(answer, format="vllm", metadata={"gpu": "H200"}, texts=True)
    assert [file.name for file in files] == ["vllm-rate-2-s-r0.json", "vllm-rate-4-s-r0.json"]
    for file, figures in zip(files, answer["as_figures"], strict=True):
        run = json.loads(file.read_text())
        assert run["gpu"] == "H200"
        assert run["duration"] == pytest.approx(figures["duration_s"])
        assert (
            run["request_throughput"]
            == pytest.approx(figures["requests_per_s"])
            == pytest.approx(run["completed"] / run["duration"])
        )
        assert run["output_throughput"] == pytest.approx(sum(run["output_lens"]) / run["duration"])
        assert run["total_token_throughput"] == pytest.approx(figures["total_tokens_per_s"])
        for name, ours in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2el", "latency")):
            assert run[f"mean_{name}_ms"] == pytest.approx(1000 * figures[ours]["mean"])
            assert run[f"median_{name}_ms"] == pytest.approx(1000 * figures[ours]["p50"])
            assert run[f"p99_{name}_ms"] == pytest.approx(1000 * figures[ours]["p99"])
        good = [i for i, error in enumerate(run["errors"]) if not error]
        assert run["mean_ttft_ms"] == pytest.approx(1000 * np.mean([run["ttfts"][i] for i in good]))
        assert run["std_itl_ms"] == pytest.approx(1000 * np.std(np.concatenate([run["itls"][i] for i in good])))
        latencies = np.array(run["latencies"])
        sums = np.array([run["ttfts"][i] + sum(run["itls"][i]) for i in range(N)])
        assert latencies == pytest.approx(sums, abs=1e-5), "what a reader of the lists takes for latency"
        assert {len(run[name]) for name in run if isinstance(run[name], list)} == {N}
        assert run["generated_texts"].count("t") == run["completed"] == len(good) == N - run["failed"]
        assert run["max_concurrent_requests"] == 1
    assert [error for error in run["errors"] if error] == ["HttpError (HTTP 500)"] * FAILED
    assert run["num_prompts"] == N


def test_a_key_of_the_file_itself_is_no_metadata(answer: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="'duration' is a key of the file itself"):
        exported(answer, format="vllm", metadata={"duration": "1"})
    with pytest.raises(ConfigError, match="is not KEY=VALUE"):
        metadata_of(["gpu"])


STATISTICS = {"units", "mean", "stddev", "min", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max"}


def test_a_report_of_llm_d_has_our_own_figures_in_its_keys(answer: dict[str, Any]) -> None:
    """The names and units that its schema takes; it forbids others."""
    for file, point in zip(exported(answer, format="llm-d"), answer["points"], strict=True):
        report = json.loads(file.read_text())
        assert set(report) == {"version", "run", "scenario", "results"}
        assert (report["version"], report["run"]["eid"], report["run"]["description"]) == (
            "0.2.1",
            GROUP,
            point["load"],
        )
        load = report["scenario"]["load"]["standardized"]
        assert (load["tool"], load["rate_qps"], "concurrency" in load) == ("kvt", point["value"], False)
        part = report["results"]["request_performance"]["aggregate"]
        requests = part["requests"]
        assert (requests["total"], requests["failures"], requests["incomplete"]) == (N, point["n_failed"], 0)
        names = {"ttft": "time_to_first_token", "tpot": "time_per_output_token", "latency": "request_latency"}
        assert set(part["latency"]) == {*names.values(), "inter_token_latency"}
        for ours, name in names.items():
            statistics = part["latency"][name]
            assert set(statistics) == STATISTICS
            assert statistics["units"] == ("s/token" if ours == "tpot" else "s")
            for stat in ("mean", "p50", "p99", "max"):
                assert statistics[stat] == pytest.approx(point["figures"][f"{ours}_{stat}_s"]["value"])
        rate = part["throughput"]["request_rate"]
        assert rate == {"units": "queries/s", "mean": pytest.approx(point["figures"]["requests_per_s"]["value"])}


def test_csv_has_a_row_a_load_or_a_row_a_request(answer: dict[str, Any], tmp_path: Path) -> None:
    (loads,) = exported(answer, format="csv")
    rows = list(csv.DictReader(loads.open()))
    for row, point in zip(rows, answer["points"], strict=True):
        assert row["load"] == point["load"]
        for name, figure in point["figures"].items():
            for end, value in (("", figure["value"]), ("_low", figure["low"]), ("_high", figure["high"])):
                assert row[name + end] == ("" if value is None else str(value)), name
    (requests,) = exported(answer, format="csv", requests=True, load="rate 4/s", out=str(tmp_path / "r.csv"))
    each = list(csv.DictReader(requests.open()))
    assert (len(each), [row["state"] for row in each].count("failure")) == (N, FAILED)


def test_the_command_says_what_it_wrote_and_which_loads_there_are(answer: dict[str, Any], tmp_path: Path) -> None:
    words = ["export", str(answer["folder"]), "--format", "csv", "--out", str(tmp_path / "x"), "--json"]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.stdout)["files"] == [str(tmp_path / "x/loads.csv")]
    with pytest.raises(ConfigError, match="no load 'rate 3/s'") as refused:
        exported(answer, format="vllm", load="rate 3/s")
    assert "rate 2/s, rate 4/s" in str(refused.value.do)
    with pytest.raises(ConfigError, match="no format 'xml'"):
        exported(answer, format="xml")
