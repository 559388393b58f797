"""An option of `kvt bench` takes the place of what a config says in its stead."""

from pathlib import Path
from typing import Any

import pytest

from kvt_async.bench.rival_keys import settled
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings


def bench(tmp_path: Path, config: str, *options: str) -> Bench:
    file = tmp_path / "b.yaml"
    file.write_text(f"bench: {config}\n")
    return load_settings(file, settled(options), environ={}).bench


@pytest.mark.parametrize(
    ("config", "options", "seen"),
    [
        ("{duration_s: 10}", ["bench.requests=4"], {"requests": 4, "duration_s": None}),
        ("{requests: 50}", ["bench.duration_s=3"], {"duration_s": 3}),
        ("{sweep_rate: [1, 2]}", ["bench.rate=4"], {"rate": 4, "sweep_rate": None}),
        ("{rate: 4}", ["bench.sweep_concurrency=auto"], {"rate": None, "sweep_concurrency": "auto"}),
        ("{search_rate: true, slo: {ttft_p99_ms: 5}}", ["bench.concurrency=8"],
         {"concurrency": 8, "search_rate": False}),
        ("{concurrency: 8, slo: {ttft_p99_ms: 5}}", ["bench.search_rate=true"],
         {"concurrency": None, "search_rate": True}),
        ("{arrival: gamma, burstiness: 0.5}", ["bench.arrival=constant"], {"arrival": "constant", "burstiness": 1.0}),
        ("{}", ["bench.burstiness=0.5"], {"arrival": "gamma", "burstiness": 0.5}),
        ("{slo: {ttft_p99_s: 2, tpot_p99_ms: 9}}", ["bench.slo.ttft_p99_ms=500"],
         {"slo": {"ttft_p99_ms": 500, "tpot_p99_ms": 9}}),
        ("{slo: {ttft_p99_ms: 2}}", ["bench.slo.ttft_p99_ms=null"], {"slo": {}}),
        ("{duration_s: 10, sweep_rate: [1]}", ["bench.repeats=3"], {"duration_s": 10, "sweep_rate": [1], "repeats": 3}),
    ],
)  # fmt: skip
def test_the_command_line_decides(tmp_path: Path, config: str, options: list[str], seen: dict[str, Any]) -> None:
    found = bench(tmp_path, config, *options)
    assert {name: getattr(found, name) for name in seen} == seen


def test_two_loads_on_the_command_line_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid") as caught:
        bench(tmp_path, "{}", "bench.rate=1", "bench.concurrency=2")
    assert "one load at a time" in str(caught.value)
