"""docs/BAD_INPUT.md, row by row: the words on stderr, the exit code, and never a traceback."""

import contextlib
import json
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from kvt_async.serve.weights import REFERENCE_DIR
from tests.analyzer.synthetic import make_db
from tests.end_to_end.conftest import Kvt, overrides
from tests.older_db import made_older

TABLE = Path(__file__).parents[2] / "docs/BAD_INPUT.md"
ROW = re.compile(r"^\| ([a-z][a-z-]+) \| (.+?) \| (.+?) \| (\d+) \|$", re.MULTILINE)
ROWS = {
    name: (re.findall(r"`([^`]+)`", says), int(code)) for name, _, says, code in ROW.findall(TABLE.read_text("utf-8"))
}

OK = """
experiment: {exp_group_id: ok}
dataset: {name: kvtext, task: multikey, params: {contexts: 6, max_tokens: 256}}
model: {name: reference}
binning: {n_bins: 2, n_per_bin: 2}
kv: {budgets: [1.0, 0.2], control_repeats: 0}
engine: {base_url: "http://127.0.0.1:9/v1"}
decoding: {max_tokens: 8}
analysis: {resamples: 500}
"""
CONFIG = ["-c", "ok.yaml"]


def with_(verb: str, *pairs: str) -> list[str]:
    return [verb, *CONFIG, *overrides(*pairs)]


def jsonl(path: str) -> list[str]:
    return ["prepare", "-c", "jsonl.yaml", *overrides(f"dataset.path={path}")]


PLAIN: dict[str, list[str]] = {
    "no-config": ["validate"],
    "config-missing": ["validate", "-c", "okk.yaml"],
    "config-unknown-name": ["validate", "-c", "demoo"],
    "config-not-yaml": ["validate", "-c", "broken.yaml"],
    "config-not-a-mapping": ["validate", "-c", "list.yaml"],
    "config-too-large": ["validate", "-c", "large.yaml"],
    "config-bomb": ["validate", "-c", "bomb.yaml"],
    "config-in-itself": ["validate", "-c", "cycle.yaml"],
    "config-deep": with_("validate", "decoding.extra_body=" + "[" * 20_000),
    "config-other-type": with_("validate", "decoding.extra_body={a: !!binary aGk=}"),
    "unknown-command": ["swep", *CONFIG],
    "shard-none": ["sweep", *CONFIG, "--shard", "3/2"],
    "shard-two": ["sweep", *CONFIG, "--shard", "1/2", "--shard-levels", "1/2"],
    "init-there": ["init", "ok.yaml"],
    "init-apply": ["init", "--apply", "vlm"],
    "init-secret": ["init", "--base-url", "http://user:pass@h/v1"],
    "init-model": ["init", "--base-url", "http://127.0.0.1:1"],
    "merge-nowhere": ["merge", "g", "nowhere"],
    "unknown-key": with_("validate", "limits.concurency=4"),
    "wrong-type": with_("validate", "limits.concurrency=many"),
    "out-of-range": with_("validate", "limits.concurrency=0"),
    "too-large": with_("validate", "limits.concurrency=100000000"),
    "not-finite": with_("validate", "limits.requests_per_minute=.inf"),
    "beyond-bits": with_("validate", "decoding.max_tokens=99999999999999999999999"),
    "nul-in-text": with_("validate", 'output.runs_dir="a\\0b"'),
    "path-too-long": with_("validate", "output.runs_dir=" + "x" * 256),
    "url-port": with_("validate", "engine.base_url=http://127.0.0.1:99999/v1"),
    "url-broken": with_("validate", "engine.base_url='http://[::1'"),
    "url-no-host": with_("validate", "bench.metrics_url=http://:80/metrics"),
    "header-reserved": with_("validate", "engine.headers={Content-Length: '5'}"),
    "header-line-break": with_("validate", 'engine.headers={X-A: "b\\r\\nX-B: c"}'),
    "override-not-pair": with_("validate", "kv.budgets"),
    "variable-missing": with_("validate", "model.name=${NOT_SET}"),
    "secret-in-a-name": with_("validate", "model.name=${A_TOKEN}"),
    "secret-too-short": with_("validate", "engine.headers={X-A: '${A_SHORT}'}"),
    "group-id-unsafe": with_("validate", "experiment.exp_group_id=../x"),
    "budget-over-one": with_("validate", "kv.budgets=[2]"),
    "budget-zero": with_("validate", "kv.budgets=[0]"),
    "budget-twice": with_("validate", "kv.budgets=[1.0, 0.5, 0.5]"),
    "apply-mixed": with_("validate", "kv.apply={via: none, body: {a: 1}}"),
    "apply-incomplete": with_("validate", "kv.apply={via: body}"),
    "placeholder-unknown": with_("validate", 'kv.apply={via: body, body: {x: "{budgte}"}}'),
    "round-to-zero": with_("validate", "kv.apply={via: body, body: {a: 1}, round_to: 0}"),
    "endpoint-missing": with_("validate", 'kv.apply={via: endpoint, endpoints: {"1.0": "http://127.0.0.1:9/v1"}}'),
    "launch-interleaved": with_("validate", "kv.apply={via: launch, command: x}", "limits.order=interleaved"),
    "dataset-unknown": with_("validate", "dataset.name=longbnch"),
    "task-unknown": with_("validate", "dataset.task=multkey"),
    "task-wrong-case": with_("validate", "dataset={name: longbench, task: NarrativeQA, params: {}}"),
    "task-not-named": with_("validate", "dataset={name: jsonl, task: null, path: one.jsonl, params: {}}"),
    "task-glob-empty": with_("validate", "dataset.task=mult_*"),
    "tasks-one-name": with_("validate", "tasks=[{dataset: {task: single}}, {dataset: {task: single}}]"),
    "tasks-unknown-key": with_("validate", "tasks=[{dataset: {tsk: single}}]"),
    "source-parameter-unknown": with_("validate", "dataset.params={contxts: 3, contexts: null, max_tokens: 256}"),
    "jsonl-no-path": jsonl("null"),
    "jsonl-missing-file": jsonl("none.jsonl"),
    "jsonl-empty": jsonl("empty.jsonl"),
    "jsonl-bad-line": jsonl("bad.jsonl"),
    "jsonl-missing-field": jsonl("field.jsonl"),
    "jsonl-duplicate-id": jsonl("twice.jsonl"),
    "jsonl-line-too-long": [*jsonl("twice.jsonl"), *overrides("dataset.params.max_line_mb=0.00001")],
    "longbench-line-too-long": [
        *["prepare", "-c", "jsonl.yaml"],
        *overrides("dataset={name: longbench, task: qasper, path: ., params: {max_line_mb: 0.00001}}"),
    ],
    "jsonl-key-twice": jsonl("keys.jsonl"),
    "conversation-unanswered": jsonl("talk.jsonl"),
    "conversation-system": jsonl("system.jsonl"),
    "scbench-mode": [
        *["validate", "-c", "jsonl.yaml"],
        *overrides("dataset={name: scbench, task: scbench_kv, params: {mode: turns}}"),
    ],
    "gold-unscorable": [*jsonl("gold.jsonl"), *overrides("dataset.params.metric=string_match_part")],
    "chat-template-fails": [*jsonl("gold.jsonl"), *overrides("tokenizer.name=fails")],
    "chat-template-blank": [*jsonl("gold.jsonl"), *overrides("tokenizer.name=blank")],
    "template-incomplete": with_("validate", "prompt.template='all of {context}'"),
    "tokenizer-missing": with_("validate", "tokenizer.name=nosuch/tokenizer.json"),
    "tokenizer-not-in-folder": with_("validate", "tokenizer.name=."),
    "model-config-missing": with_("validate", "model.config=none.json"),
    "model-config-not-json": with_("validate", "model.config=broken.yaml"),
    "model-config-nothing-said": with_("validate", "model.config=empty.json"),
    "metric-unknown": with_("validate", "analysis.metric=squad"),
    "plugin-missing": with_("validate", "plugins=[none.py]"),
    "plugin-no-python": with_("validate", "plugins=[broken.py]"),
    "plugin-raises": with_("validate", "plugins=[raises.py]"),
    "plugin-name-taken": with_("validate", "plugins=[taken.py]"),
    "plugin-wrong-signature": with_("validate", "plugins=[narrow.py]"),
    "plugin-changed": with_("validate", f"plugins=[{{path: taken.py, sha256: {'a' * 64}}}]"),
    "show-nothing": ["show", *CONFIG],
    "check-without-assertions": ["check", *CONFIG],
    "run-unprepared": ["run", *CONFIG],
    "status-nothing": ["status", *CONFIG],
    "analyze-nothing": ["analyze", *CONFIG],
    "server-unreachable": ["sweep", *CONFIG],
    "bench-two-loads": ["bench", *CONFIG, "--rate", "4", "--concurrency", "2"],
    "bench-rate-negative": ["bench", *CONFIG, "--rate", "-3"],
    "bench-list-bad": ["bench", *CONFIG, "--sweep-rate", "1,x"],
    "bench-objective-unknown": ["bench", *CONFIG, "--rate", "1", "--slo", "ttft_p42_ms=3"],
    "bench-objective-bad": ["bench", *CONFIG, "--rate", "1", "--slo", "ttft_p99_ms"],
    "bench-search-without-slo": ["bench", *CONFIG, "--search-rate"],
    "bench-burstiness-misplaced": ["bench", *CONFIG, "--rate", "1", "--arrival", "poisson", "--burstiness", "0.5"],
    "bench-tool-unknown": ["bench", *CONFIG, "--rate", "1", "--as", "wrk"],
    "bench-workload-missing": [
        "bench",
        *CONFIG,
        "--rate",
        "1",
        *overrides("bench.workload={kind: jsonl, path: none.jsonl}"),
    ],
    "bench-nothing": ["bench", "report", *CONFIG],
    "bench-compare-missing": ["bench", "compare", "a", "b"],
    "bench-unreachable": ["bench", *CONFIG, "--rate", "1"],
}

PLUGIN = "from kvt_async.plugins import metric\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    line = '{"example_id": "x1", "question": "q", "context": "c", "answers": ["a"]}\n'
    for name, text in {
        "ok.yaml": OK,
        "jsonl.yaml": "dataset: {name: jsonl, task: t}\ntokenizer: {name: 'approx:chars/4'}\n",
        "broken.yaml": "a: [",
        ".env": "A_TOKEN=tok-0123456789\nA_SHORT=abc\n",
        "list.yaml": "- 1",
        "large.yaml": "#" + " " * (256 << 10),
        "bomb.yaml": "a: &a [x]\n"
        + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 10)}]\n" for x, y in pairwise("abcdefghij")),
        "cycle.yaml": "decoding: {extra_body: &a {b: *a}}",
        "qasper.jsonl": '{"input": "q", "context": "c", "answers": ["a"]}\n',
        "empty.json": "{}",
        "empty.jsonl": "",
        "bad.jsonl": line + "{oops\n",
        "field.jsonl": '{"example_id": "x1", "context": "c", "answers": ["a"]}\n',
        "twice.jsonl": line + line,
        "broken.py": "def f(:\n",
        "raises.py": "import no_such_library\n",
        "taken.py": f"{PLUGIN}@metric('f1')\ndef score(prediction, golds, meta): ...\n",
        "narrow.py": f"{PLUGIN}@metric('mine')\ndef score(prediction): ...\n",
        "keys.jsonl": '{"question": "q", "context": "c", "answers": ["a"], "answers": ["b"]}\n',
        "talk.jsonl": '{"conversation": [{"question": "q", "answers": ["a"]}, {"question": "r"}]}\n',
        "system.jsonl": '{"conversation": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}\n',
        "gold.jsonl": line + '{"question": "q", "context": "c", "answers": ["", "b"]}\n',
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, template in {"fails": "{{ 1 // 0 }}", "blank": "hello"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_bytes((REFERENCE_DIR / "tokenizer.json").read_bytes())
        (tmp_path / name / "chat_template.jinja").write_text(template)
    return tmp_path


def verify(case: str, done: subprocess.CompletedProcess[str]) -> None:
    words, code = ROWS[case]
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert [w for w in words if w not in done.stderr] == [], done.stderr
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize("case", PLAIN)
def test_it_says_what_is_wrong(case: str, kvt: Kvt, folder: Path) -> None:
    before = {p.name for p in folder.iterdir()}
    verify(case, kvt(*PLAIN[case]))
    if PLAIN[case][0] == "validate":
        assert {p.name for p in folder.iterdir()} == before


def test_a_hub_that_is_not_there_is_said_to_be_what_is_missing(kvt: Kvt, folder: Path) -> None:
    ask = ["prepare", "-c", "jsonl.yaml", *overrides("dataset={name: longbench, task: qasper}")]
    verify("hub-unreachable", kvt(*ask, env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}))
    assert not (folder / "data").exists()


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_taken_port_is_said_to_be_taken(kvt: Kvt) -> None:
    with taken_port() as port:
        verify("port-in-use", kvt("serve", "--port", str(port)))


SERVING = "analysis.serving={context_tokens: 1000, batch: 1}"
LAUNCH = f"{sys.executable} -m tests.servers.openai_server --port {{port}} --kept {{budget}} --knob dead"


def launching(port: int) -> list[str]:
    url = f"engine.base_url=http://127.0.0.1:{port}/v1"
    return with_("sweep", f"kv.apply={{via: launch, command: '{LAUNCH}', grace_s: 2}}", url)


def test_launched_servers_need_a_free_port_and_a_live_knob(kvt: Kvt, folder: Path) -> None:
    env = {"PYTHONPATH": str(TABLE.parents[1])}
    with taken_port() as port:
        verify("launch-port-taken", kvt(*launching(port), env=env))
    verify("launch-dead-knob", kvt(*launching(0), env=env))


@contextlib.contextmanager
def scripted(*args: str) -> Iterator[str]:
    """A server of the runner's tests as a process; its URL."""
    command = [sys.executable, "-m", "tests.servers.openai_server", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"engine.base_url={process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate()


def test_a_server_must_stay_the_one_it_was(kvt: Kvt, folder: Path) -> None:
    with scripted() as url:
        assert kvt(*with_("sweep", url), "--limit", "1", "-q").returncode == 0
    with scripted("--version", "2.0") as url:
        verify("server-changed", kvt(*with_("sweep", url)))
    with scripted("--renamed-after", "14") as url:
        assert kvt(*with_("sweep", url, "experiment.exp_group_id=late"), "-q").returncode == 0
        verify("server-drifted", kvt(*with_("all", url, "experiment.exp_group_id=late")))


def test_a_report_tells_of_the_analysis_that_was_made_and_of_files_that_are_there(
    kvt: Kvt, swept: Callable[..., list[str]]
) -> None:
    assert kvt(*swept("score"), "--metric", "f1").returncode == 0
    verify("scores-of-another-metric", kvt(*swept("analyze")))
    assert kvt(*swept("all")).returncode == 0
    verify("report-other-margin", kvt(*swept("report", pairs=["analysis.margin=0.2"])))
    verify("model-config-missing", kvt(*swept("report", pairs=["model.config=none.json", SERVING])))


@pytest.fixture
def swept(kvt: Kvt, folder: Path, server_url: str) -> Callable[..., list[str]]:
    """A finished sweep of ok.yaml; returns arguments of one more command on it."""
    base = overrides(f"engine.base_url={server_url}")
    done = kvt("sweep", *CONFIG, *base, "-q")
    assert done.returncode == 0, done.stderr
    return lambda *args, pairs=(): [*args, *CONFIG, *base, *overrides(*pairs)]


def test_stages_refuse_until_the_stage_before_them_has_run(kvt: Kvt, swept: Callable[..., list[str]]) -> None:
    verify("analyze-unscored", kvt(*swept("analyze")))
    assert kvt(*swept("score")).returncode == 0
    verify("report-unanalyzed", kvt(*swept("report")))
    verify("run-id-unknown", kvt(*swept("score"), "--run-id", "nope"))
    verify("example-unknown", kvt(*swept("show", "nosuch")))
    verify("export-suffix", kvt(*swept("export", "out.txt")))


def test_guards_name_what_differs(kvt: Kvt, swept: Callable[..., list[str]], folder: Path) -> None:
    verify("contract-changed", kvt(*swept("sweep", pairs=["decoding.max_tokens=5"])))
    (manifest,) = (folder / "data").rglob("manifest.json")
    manifest.write_text(manifest.read_text("utf-8").replace('"token_len":1', '"token_len":9'), encoding="utf-8")
    verify("manifest-disagrees", kvt(*swept("validate"), "--deep"))


def test_missing_requests_need_partial(kvt: Kvt, folder: Path, server_url: str) -> None:
    base = overrides(f"engine.base_url={server_url}")
    assert kvt("sweep", *CONFIG, *base, "--limit", "1", "-q").returncode == 0
    verify("analyze-partial", kvt("all", *CONFIG, *base))
    done = kvt("all", *CONFIG, *base, "--partial")
    assert done.returncode == 0, done.stderr
    assert "PARTIAL" in done.stdout


def test_a_server_that_refuses_the_body_is_found_before_the_grid(kvt: Kvt, folder: Path, server_url: str) -> None:
    body = 'kv.apply={via: body, body: {kv: {policy: "{policy}", budget: "{budget}", color: blue}}}'
    verify("server-refuses-config", kvt(*with_("sweep", f"engine.base_url={server_url}", body)))


def test_databases_that_are_not_ours_to_write(kvt: Kvt, folder: Path) -> None:
    newer = sqlite3.connect(folder / "newer.sqlite")
    newer.execute("PRAGMA user_version=99")
    newer.close()
    verify("schema-newer", kvt(*with_("sweep", "db.path=newer.sqlite")))
    made_older(make_db(folder / "today.sqlite", n_bins=1, n_per_bin=1), folder / "older.sqlite")
    verify("schema-older", kvt(*with_("sweep", "db.path=older.sqlite")))
    verify("merge-nothing", kvt("merge", "."))
    make_db(folder / "other.sqlite", n_bins=1, n_per_bin=1, exp_group_id="other")
    verify("merge-other", kvt("merge", "today.sqlite", "other.sqlite"))
    verify("merge-older", kvt("merge", "today.sqlite", "older.sqlite"))
    verify("upgrade-nothing", kvt("upgrade", "."))
    verify("upgrade-nowhere", kvt("upgrade", "nowhere"))
    (folder / "text.sqlite").write_text("not a database at all " * 100, encoding="utf-8")
    verify("not-a-database", kvt(*with_("sweep", "db.path=text.sqlite")))
    (folder / "file").write_text("", encoding="utf-8")
    verify("runs-dir-unwritable", kvt(*with_("sweep", "output.runs_dir=file")))


def test_a_second_runner_is_told_who_holds_the_database(kvt: Kvt, folder: Path, server_url: str) -> None:
    slow = overrides(f"engine.base_url={server_url}", "limits.requests_per_minute=6")
    command = [sys.executable, "-m", "kvt_async", "sweep", *CONFIG, *slow, "-q"]
    first = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        db = folder / "runs/ok/kv_transition.sqlite"
        deadline = time.monotonic() + 60
        while not (db.exists() and _sessions(db)) and time.monotonic() < deadline:
            assert first.poll() is None
            time.sleep(0.05)  # polling another process, bounded by the deadline
        verify("locked", kvt("sweep", *CONFIG, *slow))
    finally:
        first.kill()
        first.wait()


def _sessions(db: Path) -> int:
    conn = sqlite3.connect(db)
    try:
        return int(conn.execute("SELECT count(*) FROM sessions").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # the schema is being made
    finally:
        conn.close()


def test_every_row_of_the_table_is_run_here() -> None:
    here = Path(__file__).read_text("utf-8")
    assert len(ROWS) > 45
    assert [name for name in ROWS if f'"{name}"' not in here] == []
    assert json.dumps(sorted(PLAIN)) == json.dumps(sorted(set(PLAIN) & set(ROWS)))
