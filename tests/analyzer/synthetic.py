"""A complete facts database, written as the runner would: the analyzer's tests and drawings start from one.

Only plain sqlite3 and the contract are used, so nothing here depends on what it helps to test. The truth is a
parameter: how often each series answers right at each budget and bin, how many answers flip by noise, which requests
fail or are still pending, and what the server said about the budget it applied.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kvt_async.contract.formulas.prompt_text import cluster_sha256, messages_sha256, render
from kvt_async.contract.schema import connect_for_writing

Rate = float | Callable[[str, float, int], float]  # (series, budget, bin_idx) -> probability
Accuracy = Rate | Mapping[float, float]  # or a table budget -> probability
Evidence = Literal["verified", "unverified", "contradicted"]

TEMPLATE = "{context}\n\n{question}"
NOW = "2026-01-02T03:04:05Z"
FAILURES = (  # (error_type, end_state, http_status, reason), used in turn
    ("TtfbTimeout", "timeout", None, "attempts_exhausted"),
    ("HttpError", "http_error", 500, "attempts_exhausted"),
    ("ContextOverflow", "http_error", 400, "not_retryable"),
)
WORDS = ("amber", "basil", "cedar", "dahlia", "ember", "fern", "garnet", "hazel", "iris", "juniper", "kelp", "linden")


def gentle_cliff(series: str, budget: float, bin_idx: int) -> float:
    """Right answers at full cache 0.97; a loss that starts at 0.5 and ends near nothing; short bins lose first."""
    if series == "random":
        return 0.97 * budget
    hurt = 1.0 if budget >= 0.6 else max(0.0, budget / 0.6) ** (1.6 - 0.25 * bin_idx)
    return 0.97 * hurt


@dataclass(frozen=True)
class Spec:
    """What make_db was asked for."""

    n_bins: int = 5
    n_per_bin: int = 20
    series: Sequence[str] = ("snapkv/aware",)
    budgets: Sequence[float] = (1.0, 0.5, 0.2)
    p_correct: Accuracy = gentle_cliff
    flips: float = 0.0
    failures: Rate = 0.0
    partial: float = 0.0
    control_repeats: int = 1
    evidence: Evidence = "verified"
    exp_group_id: str = "synthetic"
    generation: int = 1
    seed: int = 1337
    cluster_size: int = 1
    unit: str = "fraction"
    graded: bool = False
    metric: str = "f1"
    name: str = "kvtext"
    task: str = "single_needle"
    lengths: Sequence[int] = field(default_factory=tuple)
    bin_sizes: Sequence[int] | None = None
    full: bool = True
    cached_tokens: int = 0
    prompt_truncated: bool = False
    reads: Callable[[int], int] | None = None  # prompt tokens as the server counts them, of those sent
    tokenizer: str = "reference"
    said: Sequence[str] = ()  # the first answers of every run, whatever is right
    refused_from: Mapping[float, int] = field(default_factory=dict)  # budget -> seq: given up from there on ...
    refusal: tuple[str, int] = ("HttpError", 401)  # ... as this, sent at ...
    refused_at: str = NOW
    context_words: int = 24
    round_to: int = 1
    hashes: bool = False


def make_db(path: Path, **asked: Any) -> Path:
    """Write a facts database to `path` and return it; call again with another exp_group_id to add a group.

    n_bins, n_per_bin (or bin_sizes): how many examples; cluster_size: examples that share one context.
    series, budgets: the grid. 1.0 is full cache, run once as series 'full' (full=False leaves it out), and
        control_repeats times more as the A/A control. unit: fraction | tokens.
    p_correct: chance of a right answer, as a number, a table by budget, or f(series, budget, bin_idx); at full cache
        it is asked for series 'full'. Answers are paired: an example right at a low chance is right at a higher one.
    flips: chance that an answer is drawn anew, in every run: noise that pairing can't remove.
    graded: answers get half of the gold's words right as well, so that F1 is not only 0 or 1.
    failures: chance that a request is given up; partial: share of each run's requests still pending (the last ones).
    evidence: what the server said about the budget. seed: everything is a function of it.
    hashes: prompts, contexts and config carry their true hashes (every context a cluster of its own).
    """
    spec = Spec(**asked)
    conn = connect_for_writing(path)
    conn.execute("PRAGMA synchronous=OFF")
    try:
        conn.execute("BEGIN IMMEDIATE")
        dataset = _write_dataset(conn, spec)
        _write_session(conn, spec)
        for level_idx, (series, budget, repeat) in enumerate(_levels(spec)):
            _write_run(conn, spec, dataset, series, budget, repeat, level_idx)
        conn.execute("COMMIT")
    finally:
        conn.close()
    return path


def dataset_id(spec: Spec) -> str:
    return f"{spec.name}__{spec.task}__{_sha(spec.exp_group_id)[:8]}"


@dataclass(frozen=True)
class _Example:
    example_id: str
    bin_idx: int
    token_len: int
    gold: str
    prompt_sha256: str


def _levels(spec: Spec) -> Iterator[tuple[str, float, int]]:
    if spec.full:
        yield "full", 1.0, 0
    for series in spec.series:
        for budget in spec.budgets:
            if budget != 1.0:
                yield series, budget, 0
    if spec.full:
        for repeat in range(1, spec.control_repeats + 1):
            yield "full", 1.0, repeat


def _write_dataset(conn: Any, spec: Spec) -> list[_Example]:
    did, rng = dataset_id(spec), np.random.default_rng(spec.seed)
    sizes = list(spec.bin_sizes or [spec.n_per_bin] * spec.n_bins)
    middle = list(spec.lengths or [int(160 * 1.8**b) for b in range(len(sizes))])
    conn.execute(
        "INSERT INTO datasets VALUES (?,?,?,?,?,?,?,?,?)",
        (did, spec.name, spec.task, spec.tokenizer, _sha("tokenizer"), None, spec.metric,
         json.dumps({"template": TEMPLATE, "system": None, "endpoint": "chat"}),
         json.dumps({"n_bins": len(sizes), "n_per_bin": spec.n_per_bin, "strategy": "uniform", "seed": spec.seed})),
    )  # fmt: skip
    conn.execute("INSERT INTO manifests VALUES (?,?,?,?,?)", (did, 1, _sha(did), NOW, sum(sizes)))
    for b, length in enumerate(middle[: len(sizes)]):
        conn.execute("INSERT INTO bins VALUES (?,?,?,?)", (did, b, int(length * 0.8), int(length * 1.2)))
    made: list[_Example] = []
    for b, size in enumerate(sizes):
        for i in range(size):
            seq, cluster = len(made), i // spec.cluster_size
            a, c = (WORDS[k] for k in rng.integers(0, len(WORDS), 2))
            gold = f"{a} {c}"
            length = int(middle[b] * rng.uniform(0.8, 1.2))
            filler = " ".join(WORDS[(seq * 7 + k) % len(WORDS)] for k in range(spec.context_words))
            context = f"[{b}-{cluster}] {filler}. The code of box {seq} is {gold}. {filler}."
            question, name = f"What is the code of box {seq}?", f"ex-{seq:06d}"
            prompt, shared = _sha(f"prompt {seq}"), _sha(f"{did}/{b}/{cluster}")
            if spec.hashes:
                prompt = messages_sha256(render(TEMPLATE, context, question)[0])
                shared = cluster_sha256(context, name)
            made.append(_Example(name, b, length, gold, prompt))
            conn.execute(
                "INSERT INTO examples VALUES (?,?,?,?,?,?,?)",
                (did, name, question, context, json.dumps([gold]), json.dumps({"length": length}), shared),
            )
            conn.execute(
                "INSERT INTO manifest_entries VALUES (?,?,?,?,?,?,?,?,?,?)",
                (did, made[-1].example_id, seq, 1, b, length, length - 12, length, 0, prompt),
            )
    return made


def _write_session(conn: Any, spec: Spec) -> None:
    contract = json.dumps({"dataset_id": dataset_id(spec), "model": "reference", "decoding": {"temperature": 0}})
    conn.execute(
        "INSERT INTO experiments VALUES (?,?,?,?,?)",
        (spec.exp_group_id, spec.generation, NOW, contract, _sha(contract)),
    )
    conn.execute(
        "INSERT INTO sessions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (_session(spec), spec.exp_group_id, spec.generation, NOW, "kvt sweep -c demo.yaml", "experiment: {}",
         _sha("experiment: {}" if spec.hashes else "config"), "0.1.0", None, "3.11.2", "Linux", "truth", 8, None),
    )  # fmt: skip
    conn.execute("INSERT INTO session_ends VALUES (?,?,?,?)", (_session(spec), NOW, 0, "finished"))


def _write_run(
    conn: Any, spec: Spec, examples: list[_Example], series: str, budget: float, repeat: int, level_idx: int
) -> None:
    policy, _, mode = series.partition("/")
    mode = {"aware": "question_aware", "agnostic": "question_agnostic"}.get(mode, mode or "question_aware")
    full = series == "full"
    run_id = f"{spec.exp_group_id}-g{spec.generation}-{series.replace('/', '-')}-{budget:g}-r{repeat}"
    conn.execute(
        "INSERT INTO runs VALUES (" + ",".join("?" * 21) + ")",
        (run_id, spec.exp_group_id, spec.generation, dataset_id(spec), "reference", "http://127.0.0.1:8000/v1",
         "kvt-reference", series, policy, budget, "fraction" if full else spec.unit, mode, int(full), "body", "{}",
         json.dumps({"apply": {"via": "body", "round_to": spec.round_to}}), repeat, _sha("template"),
         json.dumps({"temperature": 0, "max_tokens": 16}), level_idx, NOW),
    )  # fmt: skip
    shared = np.random.default_rng([spec.seed, 1]).random(len(examples))  # the same examples are hard everywhere
    noise = np.random.default_rng([spec.seed, 2, level_idx]).random((len(examples), 4))
    kept_rows = len(examples) - round(spec.partial * len(examples))
    tables = {"requests": 5, "attempts": 13, "telemetry": 33, "responses": 9, "give_ups": 4}
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in tables}
    for seq, ex in enumerate(examples):
        request_id = f"{run_id}:{seq}"
        rows["requests"].append((request_id, run_id, ex.example_id, ex.prompt_sha256, NOW))
        if seq >= kept_rows:
            continue
        if seq >= spec.refused_from.get(budget, len(examples)) and not full:
            _refusal(spec, rows, request_id, ex)
            continue
        draw = noise[seq, 1] if noise[seq, 0] < spec.flips else shared[seq]
        right = draw < _rate(spec.p_correct, series, budget, ex.bin_idx)
        near = spec.graded and not right and shared[seq] < 0.5 + noise[seq, 1] / 4
        _outcome(spec, rows, request_id, ex, series, budget, right, near, noise[seq])
    for table, width in tables.items():
        conn.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * width)})", rows[table])


def _refusal(spec: Spec, rows: dict[str, list[tuple[Any, ...]]], request_id: str, ex: _Example) -> None:
    error, status = spec.refusal
    rows["attempts"].append(
        (request_id, 0, 0, _session(spec), spec.refused_at, "http://127.0.0.1:8000/v1", status, "http_error", error,
         "no", None, None, 0.01)
    )  # fmt: skip
    rows["telemetry"].append(_marks(request_id, None, None, ex.token_len, None, None))
    rows["give_ups"].append((request_id, 0, "not_retryable", spec.refused_at))


def _outcome(
    spec: Spec, rows: dict[str, list[tuple[Any, ...]]], request_id: str, ex: _Example, series: str, budget: float,
    right: bool, near: bool, noise: Any,
) -> None:  # fmt: skip
    asked = 1.0 if series == "full" else budget / ex.token_len if spec.unit == "tokens" else budget
    kept = max(1, min(ex.token_len, int(ex.token_len * asked)))
    ttft, tpot = 0.02 + 4e-5 * ex.token_len + 0.004 * noise[3], 0.002 + 2e-6 * kept
    latency = ttft + 3 * tpot
    if noise[2] < _rate(spec.failures, series, budget, ex.bin_idx):
        error, end, status, reason = FAILURES[int(noise[3] * 1000) % len(FAILURES)]
        rows["attempts"].append(
            (request_id, 0, 0, _session(spec), NOW, "http://127.0.0.1:8000/v1", status, end, error,
             "the server did not answer", None, None, latency)
        )  # fmt: skip
        rows["telemetry"].append(_marks(request_id, None, None, ex.token_len, None, None))
        rows["give_ups"].append((request_id, 0, reason, NOW))
        return
    rows["attempts"].append(
        (
            request_id,
            0,
            0,
            _session(spec),
            NOW,
            "http://127.0.0.1:8000/v1",
            200,
            "done",
            None,
            None,
            None,
            None,
            latency,
        )
    )
    rows["telemetry"].append(
        _marks(
            request_id, ttft, latency, spec.reads(ex.token_len) if spec.reads else ex.token_len, 4, spec.cached_tokens
        )
    )
    wrong = f"{WORDS[::-1][WORDS.index(ex.gold.split()[0])]}x {WORDS[int(noise[3] * len(WORDS))]}y"
    text = ex.gold.title() + "." if right else f"{ex.gold.split()[0]} {wrong.split()[1]}" if near else wrong
    seq = int(request_id.rpartition(":")[2])
    text = spec.said[seq] if seq < len(spec.said) else text
    counted = ex.token_len - (50 if spec.prompt_truncated else 0)
    usage: dict[str, Any] = {"prompt_tokens": counted, "completion_tokens": 4, "total_tokens": counted + 4}
    effective, evidence = None, None
    if spec.evidence != "unverified":
        did = ex.token_len if spec.evidence == "contradicted" else kept
        effective = float(did) if spec.unit == "tokens" and series != "full" else did / ex.token_len
        usage["kv"] = {
            "policy": series.partition("/")[0], "prompt_tokens": ex.token_len, "kept_tokens": did,
            "kept_fraction": did / ex.token_len, "bytes": did * 1024, "prefill_cached": False,
        }  # fmt: skip
        unit = "fraction" if series == "full" else spec.unit
        evidence = json.dumps({"requested": budget, "effective": effective, "unit": unit, "source": "echoed"})
    rows["responses"].append((request_id, 0, text, None, "stop", json.dumps(usage), evidence, effective, NOW))


def _marks(
    request_id: str, ttft: float | None, latency: float | None, prompt: int, completion: int | None, cached: int | None
) -> tuple[Any, ...]:
    start = 1_000_000_000

    def at(seconds: float | None) -> int | None:
        return None if seconds is None else start + int(seconds * 1e9)

    first = None if ttft is None else ttft - 0.001
    return (
        request_id, 0, None, start - 3_000_000, start - 2_000_000, start - 1_000_000, start - 500_000, 1, start,
        start + 10_000, start + 20_000, at(first), at(first), at(first), None, at(ttft), None, at(latency), at(latency),
        at(latency), at(latency), at(latency) or start + 60_000_000_000, "user", None, None, None,
        None if completion is None else completion + 3, completion, 900, None, prompt, completion, cached,
    )  # fmt: skip


def _rate(rate: Accuracy, series: str, budget: float, bin_idx: int) -> float:
    if callable(rate):
        return float(rate(series, budget, bin_idx))
    return float(rate[budget]) if isinstance(rate, Mapping) else float(rate)


def _session(spec: Spec) -> str:
    return f"session-{spec.exp_group_id}-g{spec.generation}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
