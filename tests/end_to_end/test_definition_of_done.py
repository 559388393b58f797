"""The blueprint's Definition of Done, by the commands a user types, against the real model."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvt_async.serve.weights import REFERENCE_DIR
from tests.end_to_end.conftest import CHARTS, SMALL, Kvt, kvt_in, ok, overrides
from tests.worlds import query


def small(server_url: str) -> list[str]:
    return ["-c", "demo", *overrides(*SMALL, "kv.budgets=[1.0, 0.5, 0.1]", f"engine.base_url={server_url}")]


@pytest.fixture
def args(server_url: str) -> list[str]:
    return small(server_url)


@dataclass(frozen=True)
class Job:
    """The whole job, stage by stage, pictures included; `left`: what was there after each command."""

    kvt: Kvt
    args: list[str]
    folder: Path
    paths: dict[str, Path]
    left: dict[str, list[Path]]


@pytest.fixture(scope="module")
def job(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    kvt, args = kvt_in(folder, forked=False), [*small(server_url), *CHARTS]
    paths = {k: folder / v for k, v in json.loads(ok(kvt("resolve", *args, "--json"))).items()}
    left = {}
    for command in ("validate", "prepare", "validate --deep", "run", "score", "analyze", "report"):
        ok(kvt(*command.split(), *args))
        left[command] = sorted(folder.rglob("*"))
    return Job(kvt, args, folder, paths, left)


def test_the_whole_job_leaves_what_the_blueprint_asks_for(job: Job) -> None:
    db, plots, report = job.paths["db"], job.paths["plots"], job.paths["report_md"]
    assert job.left["validate"] == []  # nor did resolve create anything

    entries = len(json.loads(job.paths["manifest"].read_text(encoding="utf-8"))["entries"])
    assert entries == 12
    for table in ("datasets", "examples", "bins", "manifest_entries"):
        assert query(db, f"SELECT count(*) FROM {table}")[0][0] > 0

    progress = query(db, "SELECT run_id, planned, requests, responses, failures FROM run_progress")
    assert len(progress) == 1 + 2 * 4 + 1  # full, two budgets of four series, the A/A control
    assert all(planned == requests == entries for _, planned, requests, _, _ in progress)
    assert all(requests == responses + failures for _, _, requests, responses, failures in progress)
    assert query(db, "SELECT count(*) FROM responses JOIN failures USING (request_id)") == [(0,)]

    assert query(db, "SELECT count(*) FROM scores") == query(db, "SELECT count(*) FROM requests")

    expected = len(progress) * (3 + 1)  # every bin and their mean
    assert query(db, "SELECT count(*) FROM bin_stats") == [(expected,)]
    assert query(db, "SELECT count(*) FROM transition_summary")[0][0] == 4 * (3 + 1)
    for name in ("acc_by_bin", "fail_by_bin", "latency_p50_by_bin"):
        assert plots / f"{name}.png" in job.left["analyze"]
        assert (plots / f"{name}.png").stat().st_size > 1000

    assert report not in job.left["analyze"]
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", report.read_text(encoding="utf-8"))
    assert pictures
    assert all((report.parent / p).is_file() for p in pictures)
    assert job.paths["report_html"].is_file()


def test_the_same_commands_again_send_nothing_and_change_no_byte(job: Job) -> None:
    run_dir, db = job.folder / "runs/demo", job.paths["db"]
    attempts = query(db, "SELECT count(*) FROM attempts")
    before = {
        p: p.read_bytes() for p in sorted(run_dir.rglob("*")) if p.suffix in (".md", ".html", ".png", ".svg", ".json")
    }
    ok(job.kvt("sweep", *job.args, "-q"))
    ok(job.kvt("all", *job.args, "-q"))
    assert query(db, "SELECT count(*) FROM attempts") == attempts
    assert set(before) >= {run_dir / "report.md", run_dir / "report.html"}
    for path, old in before.items():
        differing = [(a, b) for a, b in zip(old.splitlines(), path.read_bytes().splitlines(), strict=True) if a != b]
        assert len(differing) <= (1 if path.stem == "report" else 0), path
        assert all(b"enerated" in a for a, _ in differing)


def test_an_added_budget_sends_only_its_own_requests(kvt: Kvt, args: list[str], tmp_path: Path) -> None:
    ok(kvt("sweep", *args, "-q"))
    db = tmp_path / "runs/demo/kv_transition.sqlite"
    before = query(db, "SELECT count(*) FROM attempts")[0][0]
    ok(kvt("sweep", *args, *overrides("kv.budgets=[1.0, 0.5, 0.3, 0.1]"), "-q"))
    assert query(db, "SELECT count(*) FROM attempts")[0][0] == before + 4 * 12
    assert query(db, "SELECT count(DISTINCT run_id) FROM attempts JOIN requests USING (request_id)") == [(14,)]


def test_a_changed_contract_field_is_refused_by_name_and_forced_beside_the_old_one(
    kvt: Kvt, args: list[str], tmp_path: Path
) -> None:
    ok(kvt("sweep", *args, "-q"))
    db = tmp_path / "runs/demo/kv_transition.sqlite"
    changed = [*args, *overrides("decoding.max_tokens=4")]
    refused = kvt("sweep", *changed)
    assert refused.returncode == 3
    assert "max_tokens" in refused.stderr
    assert "8" in refused.stderr
    assert "4" in refused.stderr
    assert "--force" in refused.stderr
    before = query(db, "SELECT count(*) FROM attempts")[0][0]
    ok(kvt("sweep", *changed, "--force", "-q"))
    assert query(db, "SELECT DISTINCT generation FROM runs ORDER BY 1") == [(1,), (2,)]
    assert query(db, "SELECT count(*) FROM attempts")[0][0] == 2 * before


def test_the_sanity_experiment_passes_its_own_assertions(kvt: Kvt, server_url: str) -> None:
    args = ["-c", "sanity", *overrides(f"engine.base_url={server_url}")]
    ok(kvt("sweep", *args, "-q"))
    ok(kvt("all", *args, "-q"))
    assert "FAIL" not in ok(kvt("check", *args))


@pytest.mark.parametrize(
    "experiment", ["edge-one-per-bin", "edge-one-bin", "edge-one-budget", "edge-tiny-max-tokens", "edge-empty-context"]
)
def test_every_edge_case_reaches_a_report(kvt: Kvt, server_url: str, experiment: str, tmp_path: Path) -> None:
    args = ["-c", experiment, *overrides(f"engine.base_url={server_url}"), "-q"]
    assert kvt("sweep", *args).returncode == 0
    ok(kvt("all", *args))
    assert (tmp_path / "runs" / experiment.replace("-", "_") / "report.html").is_file()


def test_show_prints_the_prompt_the_golds_and_every_answer(kvt: Kvt, args: list[str]) -> None:
    ok(kvt("sweep", *args, "-q"))
    ok(kvt("score", *args, "-q"))
    text = ok(kvt("show", *args, "--sample", "1"))
    for word in ("code", "full", "snapkv/aware", "random/aware"):
        assert word in text


def test_the_demo_starts_its_own_server_and_keeps_exit_4_while_failures_stand(kvt: Kvt, tmp_path: Path) -> None:
    args = overrides(
        "dataset.params={contexts: 4, min_tokens: 3000, max_tokens: 5000}",  # the model reads 4,096 tokens at most
        "binning={n_bins: 1, n_per_bin: 8}", "kv={policies: [streaming_llm], budgets: [1.0, 0.2], control_repeats: 0}",
        "analysis.resamples=500",
    )  # fmt: skip
    sent = []
    for _ in range(2):
        done = kvt("demo", *args, "--json")
        assert done.returncode == 4, done.stderr
        answer = json.loads(done.stdout)
        assert answer["verdict"]
        failures = query(tmp_path / "runs/demo/kv_transition.sqlite", "SELECT DISTINCT error_type FROM failures")
        assert failures == [("ContextOverflow",)]
        sent += query(tmp_path / "runs/demo/kv_transition.sqlite", "SELECT count(*) FROM attempts")
    assert sent[0] == sent[1]


def test_the_demo_serves_a_model_that_is_named(kvt: Kvt, tmp_path: Path) -> None:
    shutil.copytree(REFERENCE_DIR, tmp_path / "mine")
    args = overrides(
        "dataset.params={contexts: 8, max_tokens: 200}", "binning={n_bins: 1, n_per_bin: 8}",
        "kv={policies: [random], budgets: [1.0, 0.2], control_repeats: 0}", "analysis.resamples=500",
    )  # fmt: skip
    done = kvt("demo", "--model", str(tmp_path / "mine"), *args, "--json")
    assert done.returncode == 0, done.stderr
    assert query(tmp_path / "runs/demo/kv_transition.sqlite", "SELECT DISTINCT model_name FROM runs") == [("mine",)]
    count = query(tmp_path / "runs/demo/kv_transition.sqlite", "SELECT count(*) FROM responses")
    assert count == [(16,)]
    assert kvt("demo", "--model", str(tmp_path / "nowhere"), *args).returncode == 2


def test_the_experiment_on_long_answers_serves_the_model_that_it_names_and_loses_items(
    kvt: Kvt, tmp_path: Path
) -> None:
    args = overrides(
        "dataset.params={contexts: 6, min_tokens: 256, max_tokens: 400, density: 0.5}",
        "binning={n_bins: 1, n_per_bin: 6}", "kv.policies=[full, streaming_llm]", "kv.budgets=[128]",
        "kv.control_repeats=0", "analysis.resamples=500",
    )  # fmt: skip
    done = kvt("demo", "-c", "decode", *args, "--json")
    assert done.returncode == 0, done.stderr
    rows = query(
        tmp_path / "runs/decode/kv_transition.sqlite",
        "SELECT u.model_name, u.kv_when, avg(s.score), min(r.kv_evidence_json ->> '$.n_compressions') "
        "FROM runs u JOIN requests USING (run_id) JOIN responses r USING (request_id) JOIN scores s USING (request_id) "
        "GROUP BY u.run_id ORDER BY u.kv_when DESC",
    )
    (model, when, full, _), (same_model, later, at_128, n_compressions) = rows
    assert (model, when, same_model, later) == ("reference-recite", "prefill", "reference-recite", "decode")
    assert full >= 0.95
    assert at_128 < full - 0.2
    assert n_compressions >= 1
