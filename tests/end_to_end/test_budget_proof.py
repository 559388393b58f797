"""Over the command line: a server that ignores the budget, one that applies another, one that is unlike itself, and one
that becomes another. What is refused, and what everything says where it is allowed all the same."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import CHARTS, Kvt, overrides
from tests.worlds import write_examples

CONFIG = """
experiment: {exp_group_id: proof}
dataset: {name: jsonl, task: made, path: examples.jsonl}
tokenizer: {name: "approx:chars/4"}
model: {name: reference}
binning: {n_bins: 2, n_per_bin: 6}
kv: {budgets: [1.0, 0.5, 0.2], control_repeats: 0}
decoding: {max_tokens: 8}
analysis: {resamples: 500}
"""
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start the scripted server with these arguments; its URL."""
    processes = []

    def start(*args: str) -> str:
        command = [sys.executable, "-m", "tests.servers.openai_server", "--port", "0", *args]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def on(kvt: Kvt, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`kvt VERB` of the experiment above against a URL."""
    write_examples(tmp_path / "examples.jsonl", 12)
    (tmp_path / "proof.yaml").write_text(CONFIG, encoding="utf-8")

    def run(
        verb: str, url: str, *args: str, pairs: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return kvt(verb, "-c", "proof.yaml", *overrides(f"engine.base_url={url}", *pairs), *args, env=env)

    return run


def test_a_dead_knob_is_refused_before_the_grid_and_where_it_is_allowed_everything_says_so(
    serve: Serve, on: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    url = serve("--knob", "dead")
    refused = on("sweep", url)
    assert refused.returncode == 3, refused.stderr
    readings = ("the server ignores what kv.apply sends it", "no eviction can hurt this task")
    for reading in ("no request was sent", *readings, "--allow-dead-knob"):
        assert reading in refused.stderr
    assert json.loads(on("status", url, "--json").stdout or "{}").get("responses", 0) == 0
    allowed = on("sweep", url, "--allow-dead-knob")
    assert allowed.returncode == 0, allowed.stderr
    told = on("all", url, *CHARTS)
    assert told.returncode == 0, told.stderr
    run_dir = tmp_path / "runs/proof"
    specs = [path.read_text("utf-8") for path in (run_dir / "plots").glob("*.vl.json")]
    assert len(specs) >= 3
    for text in (told.stdout, (run_dir / "report.md").read_text("utf-8"), *specs):
        assert "DEAD KNOB" in text
        assert "UNVERIFIED" in text


def test_a_server_that_applies_another_budget_than_asked_is_contradicted_and_not_analysed(
    serve: Serve, on: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    url = serve("--knob", "half")
    assert on("sweep", url).returncode == 0
    refused = on("all", url)
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "the server applied another budget than asked" in refused.stderr
    assert "asked 0.5 fraction, median answer 0.25" in refused.stderr


def test_a_server_that_is_unlike_itself_is_inconclusive_and_its_budgets_stay_unverified(
    serve: Serve, on: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    url = serve("--knob", "random")
    swept = on("sweep", url)
    assert swept.returncode == 0, swept.stderr
    assert "canary inconclusive" in swept.stderr
    told = on("all", url)
    assert told.returncode == 0, told.stderr
    assert "UNVERIFIED" in told.stdout
    assert "inconclusive (full cache did not repeat itself)" in (tmp_path / "runs/proof/report.md").read_text("utf-8")


def test_a_server_that_becomes_another_one_is_refused_by_analyze_unless_that_is_allowed(
    serve: Serve, on: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    url = serve("--renamed-after", "20")
    swept = on("sweep", url)
    assert swept.returncode == 0, swept.stderr
    assert "during the session: analyze will refuse" in swept.stderr
    refused = on("all", url)
    assert refused.returncode == 3
    assert "analysis.allow_drift=true" in refused.stderr
    told = on("all", url, pairs=("analysis.allow_drift=true",))
    assert told.returncode == 0, told.stderr
    assert "DRIFT" in told.stdout
    assert on("report", url).returncode == 3
    assert "DRIFT" in (tmp_path / "runs/proof/report.md").read_text("utf-8")


def test_a_metric_that_shows_another_budget_after_the_requests_contradicts_them(
    on: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    command = f"{sys.executable} -m tests.servers.openai_server --port {{port}} --kept {{budget}} --renamed-after 10"
    launched = (f"kv.apply={{via: launch, command: '{command}', grace_s: 2}}", "kv.evidence={metric: kv_kept}",
                "kv.budgets=[1.0, 0.5]")  # fmt: skip
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    swept = on("sweep", "http://127.0.0.1:0/v1", pairs=launched, env=env)
    assert swept.returncode == 0, swept.stderr
    assert "metric kv_kept said 0.5 before its requests and 1.0 after them" in swept.stderr
    refused = on("all", "http://127.0.0.1:0/v1", pairs=("analysis.allow_drift=true",))
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "the server applied another budget than asked" in refused.stderr
    assert "metric kv_kept said 0.5 before its requests and 1.0 after them" in refused.stderr
