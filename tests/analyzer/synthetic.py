"""A complete facts database, written as the runner would: the analyzer's tests and drawings start from one.

Only plain sqlite3 and the contract are used, so nothing here depends on what it helps to test. The truth is a
parameter: how often each series answers right at each budget and bin, how many answers flip by noise, which requests
fail or are still pending, and what the server said about the budget it applied.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kvt_async.contract.formulas.prompt_text import cluster_sha256, messages_sha256, render
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.vocabulary import CONSTRAINED
from tests.tables import insert, insert_many, insert_run, insert_session

Rate = float | Callable[[str, float, int], float]  # (series, budget, bin_idx) -> probability
Accuracy = Rate | Mapping[float, float]  # or a table budget -> probability
Evidence = Literal["verified", "unverified", "contradicted"]

Row = dict[str, Any]
URL = "http://127.0.0.1:8000/v1"
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
    partial: Rate = 0.0
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
    constrained: bool = False
    cached_tokens: int = 0
    prompt_truncated: bool = False
    reads: Callable[[int], int] | None = None  # prompt tokens as the server counts them, of those sent
    tokenizer: str = "reference"
    said: Sequence[str] = ()  # the first answers of every run, whatever is right
    reply: Callable[[str, float, int, int], Mapping[str, Any]] | None = None  # (series, budget, repeat, seq)
    decoding: Mapping[str, Any] = field(default_factory=dict)  # what of it isn't the usual
    refused_from: Mapping[float, int] = field(default_factory=dict)  # budget -> seq: given up from there on ...
    refusal: tuple[str, int] = ("HttpError", 401)  # ... as this, sent at ...
    refused_at: str = NOW
    context_words: int = 24
    round_to: int = 1
    hashes: bool = False
    tasks: Sequence[Mapping[str, Any]] = ()
    shares_contexts: bool = False
    looks: Mapping[str, int] = field(default_factory=dict)
    samples: int = 1
    drawn: float = 0.0
    temperature: float = 0.0
    in_suite: bool = False  # one of several tasks


def make_db(path: Path, **asked: Any) -> Path:
    """Write a facts database to `path` and return it; call again with another exp_group_id to add a group.

    n_bins, n_per_bin (or bin_sizes): how many examples; cluster_size: examples that share one context.
    series, budgets: the grid. 1.0 is full cache, run once as series 'full' (full=False leaves it out), and
        control_repeats times more as the A/A control. unit: fraction | tokens. constrained: also run it once more as
        series 'constrained full', under the levels' other restrictions.
    p_correct: chance of a right answer, as a number, a table by budget, or f(series, budget, bin_idx); at full cache
        it is asked for series 'full'. Answers are paired: an example right at a low chance is right at a higher one.
    flips: chance that an answer is drawn anew, in every run: noise that pairing can't remove.
    graded: answers get half of the gold's words right as well, so that F1 is not only 0 or 1.
    failures: chance that a request is given up; partial: share of each run's requests still pending (the last ones).
    reply: what is another than usual of one reply: its text, finish_reason or completion tokens.
    decoding: what runs say of it, e.g. temperature and seed.
    evidence: what the server said about the budget. seed: everything is a function of it.
    tasks: several tasks in one group: what each has otherwise than the group, its `task` name at least; looks: the look
        of a task, 1 if it isn't named; shares_contexts: equal places of equal bins hold one context in all tasks.
    samples: answers of each example; drawn: chance that an answer is drawn anew for its sample, alike at every level
        (as equal seeds make it) but full cache's repeats of even number; temperature: of the requests.
    hashes: prompts, contexts and config carry their true hashes (every context a cluster of its own).
    """
    spec = Spec(**asked)
    conn = connect_for_writing(path)
    conn.execute("PRAGMA synchronous=OFF")
    try:
        conn.execute("BEGIN IMMEDIATE")
        tasks = [replace(spec, **own, tasks=(), in_suite=True, seed=spec.seed + i) for i, own in enumerate(spec.tasks)]
        datasets = [(task, _write_dataset(conn, task)) for task in tasks or [spec]]
        _write_session(conn, spec)
        for task, examples in datasets:
            if spec.tasks or spec.samples > 1:
                _write_task(conn, task)
            for level_idx, level in enumerate(_levels(task)):
                _write_run(conn, task, examples, level, level_idx)
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
    if spec.constrained:
        yield CONSTRAINED, 1.0, 0
    for series in spec.series:
        for budget in spec.budgets:
            if budget != 1.0:
                yield series, budget, 0
    if spec.full:
        for repeat in range(1, spec.control_repeats + 1):
            yield "full", 1.0, repeat


def _write_dataset(conn: sqlite3.Connection, spec: Spec) -> list[_Example]:
    did, rng = dataset_id(spec), np.random.default_rng(spec.seed)
    sizes = list(spec.bin_sizes or [spec.n_per_bin] * spec.n_bins)
    middle = list(spec.lengths or [int(160 * 1.8**b) for b in range(len(sizes))])
    insert(
        conn,
        "datasets",
        dataset_id=did,
        name=spec.name,
        task=spec.task,
        tokenizer_name=spec.tokenizer,
        tokenizer_sha256=_sha("tokenizer"),
        metric=spec.metric,
        prompt_json=json.dumps({"template": TEMPLATE, "system": None, "endpoint": "chat"}),
        selection_json=json.dumps(
            {"n_bins": len(sizes), "n_per_bin": spec.n_per_bin, "strategy": "uniform", "seed": spec.seed}
        ),
    )
    insert(conn, "manifests", dataset_id=did, version=1, sha256=_sha(did), created_at=NOW, n_entries=sum(sizes))
    bins = zip(range(len(sizes)), middle, strict=False)
    insert_many(
        conn,
        "bins",
        ({"dataset_id": did, "bin_idx": b, "lo_tokens": int(at * 0.8), "hi_tokens": int(at * 1.2)} for b, at in bins),
    )
    made: list[_Example] = []
    examples: list[Row] = []
    entries: list[Row] = []
    for b, size in enumerate(sizes):
        for i in range(size):
            seq, cluster = len(made), i // spec.cluster_size
            a, c = (WORDS[k] for k in rng.integers(0, len(WORDS), 2))
            gold = f"{a} {c}"
            length = int(middle[b] * rng.uniform(0.8, 1.2))
            filler = " ".join(WORDS[(seq * 7 + k) % len(WORDS)] for k in range(spec.context_words))
            context = f"[{b}-{cluster}] {filler}. The code of box {seq} is {gold}. {filler}."
            question, name = f"What is the code of box {seq}?", f"ex-{seq:06d}"
            prompt, shared = _sha(f"prompt {seq}"), _sha(f"{'' if spec.shares_contexts else did}/{b}/{cluster}")
            if spec.hashes:
                prompt = messages_sha256(render(TEMPLATE, context, question)[0])
                shared = cluster_sha256(context, name)
            made.append(_Example(name, b, length, gold, prompt))
            examples.append(
                {
                    "dataset_id": did,
                    "example_id": name,
                    "question": question,
                    "context": context,
                    "answers_json": json.dumps([gold]),
                    "meta_json": json.dumps({"length": length}),
                    "context_sha256": shared,
                }
            )
            entries.append(
                {
                    "dataset_id": did,
                    "example_id": name,
                    "seq": seq,
                    "version": 1,
                    "bin_idx": b,
                    "token_len": length,
                    "context_tokens": length - 12,
                    "original_tokens": length,
                    "prompt_truncated": 0,
                    "prompt_sha256": prompt,
                }
            )
    insert_many(conn, "examples", examples)
    insert_many(conn, "manifest_entries", entries)
    return made


def _write_task(conn: sqlite3.Connection, spec: Spec) -> None:
    own = {"exp_group_id": spec.exp_group_id, "generation": spec.generation, "dataset_id": dataset_id(spec)}
    look = spec.looks.get(spec.task, 1)
    contract = {"contract_json": "{}", "contract_sha256": _sha("{}")}
    insert(conn, "task_contracts", **own, task=spec.task, **contract, look=look, created_at=NOW)
    insert(conn, "sample_plans", **own, samples=spec.samples, session_id=_session(spec), created_at=NOW)


def _write_session(conn: sqlite3.Connection, spec: Spec) -> None:
    contract = json.dumps({"dataset_id": dataset_id(spec), "model": "reference", "decoding": {"temperature": 0}})
    group = {"exp_group_id": spec.exp_group_id, "generation": spec.generation}
    insert(conn, "experiments", **group, created_at=NOW, contract_json=contract, contract_sha256=_sha(contract))
    insert_session(
        conn,
        session_id=_session(spec),
        **group,
        started_at=NOW,
        command="kvt sweep -c demo.yaml",
        config_yaml="experiment: {}",
        config_sha256=_sha("experiment: {}" if spec.hashes else "config"),
        python="3.11.2",
        concurrency=8,
    )
    insert(conn, "session_ends", session_id=_session(spec), ended_at=NOW, exit_code=0, reason="finished")


def _write_run(
    conn: sqlite3.Connection,
    spec: Spec,
    examples: list[_Example],
    level: tuple[str, float, int],
    level_idx: int,
) -> None:
    """`level`: its series, budget and repeat."""
    series, budget, repeat = level
    policy, _, mode = series.partition("/")
    mode = {"aware": "question_aware", "agnostic": "question_agnostic"}.get(mode, mode or "question_aware")
    full = series == "full"
    policy = "full" if series == CONSTRAINED else policy
    run_id = f"{spec.exp_group_id}-g{spec.generation}-{series.replace('/', '-')}-{budget:g}-r{repeat}"
    run_id = f"{spec.task}-{run_id}" if spec.in_suite else run_id
    insert_run(
        conn,
        run_id=run_id,
        exp_group_id=spec.exp_group_id,
        generation=spec.generation,
        dataset_id=dataset_id(spec),
        model_name="reference",
        base_url=URL,
        series=series,
        kv_policy=policy,
        kv_budget=budget,
        kv_unit="fraction" if policy == "full" else spec.unit,
        kv_mode=mode,
        is_full=int(full),
        kv_apply="body",
        apply_json=json.dumps({"apply": {"via": "body", "round_to": spec.round_to}}),
        repeat_idx=repeat,
        prompt_template_version=_sha("template"),
        decoding_json=json.dumps(
            {"temperature": spec.temperature, "max_tokens": 16, "seed": spec.seed} | dict(spec.decoding)
        ),
        level_idx=level_idx,
        created_at=NOW,
    )
    shared = np.random.default_rng([spec.seed, 1]).random(len(examples))  # the same examples are hard everywhere
    kept_rows = len(examples) - round(_rate(spec.partial, series, budget, 0) * len(examples))
    rows: dict[str, list[Row]] = {table: [] for table in ("requests", "attempts", "telemetry", "responses", "give_ups")}
    for j, (seq, ex) in product(range(spec.samples), enumerate(examples)):
        if not seq:
            noise = np.random.default_rng([spec.seed, 2, level_idx, *([j] if j else [])]).random((len(examples), 4))
            seeds = [spec.seed, 3, j, repeat if repeat % 2 == 0 else 0]
            drawn = np.random.default_rng(seeds).random((len(examples), 2))
        request_id = f"{run_id}:{seq}.{j}" if j else f"{run_id}:{seq}"
        request = {"request_id": request_id, "run_id": run_id, "example_id": ex.example_id, "sample_idx": j}
        rows["requests"].append({**request, "prompt_sha256": ex.prompt_sha256, "created_at": NOW})
        if seq >= kept_rows:
            continue
        if seq >= spec.refused_from.get(budget, len(examples)) and not full:
            _refusal(spec, rows, request_id, ex)
            continue
        own = drawn[seq, 1] if drawn[seq, 0] < spec.drawn else shared[seq]
        draw = noise[seq, 1] if noise[seq, 0] < spec.flips else own
        right = draw < _rate(spec.p_correct, series, budget, ex.bin_idx)
        near = spec.graded and not right and shared[seq] < 0.5 + noise[seq, 1] / 4
        _outcome(spec, rows, request_id, ex, series, budget, right, near, noise[seq])
    for table, written in rows.items():
        insert_many(conn, table, written)


def _attempt(
    spec: Spec,
    request_id: str,
    latency_s: float,
    *,
    status: int | None = 200,
    end: str = "done",
    error: str | None = None,
    message: str | None = None,
    at: str = NOW,
) -> Row:
    return {
        "request_id": request_id,
        "attempt_idx": 0,
        "series_idx": 0,
        "session_id": _session(spec),
        "started_at": at,
        "endpoint": URL,
        "http_status": status,
        "end_state": end,
        "error_type": error,
        "error_message": message,
        "latency_s": latency_s,
    }


def _given_up(request_id: str, reason: str, at: str = NOW) -> Row:
    return {"request_id": request_id, "series_idx": 0, "reason": reason, "created_at": at}


def _refusal(spec: Spec, rows: dict[str, list[Row]], request_id: str, ex: _Example) -> None:
    error, status = spec.refusal
    refused = _attempt(
        spec, request_id, 0.01, status=status, end="http_error", error=error, message="no", at=spec.refused_at
    )
    rows["attempts"].append(refused)
    rows["telemetry"].append(_marks(request_id, None, None, ex.token_len, None, None))
    rows["give_ups"].append(_given_up(request_id, "not_retryable", spec.refused_at))


def _outcome(
    spec: Spec, rows: dict[str, list[Row]], request_id: str, ex: _Example, series: str, budget: float,
    right: bool, near: bool, noise: Any,
) -> None:  # fmt: skip
    asked = 1.0 if series == "full" else budget / ex.token_len if spec.unit == "tokens" else budget
    kept = max(1, min(ex.token_len, int(ex.token_len * asked)))
    ttft, tpot = 0.02 + 4e-5 * ex.token_len + 0.004 * noise[3], 0.002 + 2e-6 * kept
    latency = ttft + 3 * tpot
    if noise[2] < _rate(spec.failures, series, budget, ex.bin_idx):
        error, end, status, reason = FAILURES[int(noise[3] * 1000) % len(FAILURES)]
        message = "the server did not answer"
        failed = _attempt(spec, request_id, latency, status=status, end=end, error=error, message=message)
        rows["attempts"].append(failed)
        rows["telemetry"].append(_marks(request_id, None, None, ex.token_len, None, None))
        rows["give_ups"].append(_given_up(request_id, reason))
        return
    rows["attempts"].append(_attempt(spec, request_id, latency))
    read = spec.reads(ex.token_len) if spec.reads else ex.token_len
    wrong = f"{WORDS[::-1][WORDS.index(ex.gold.split()[0])]}x {WORDS[int(noise[3] * len(WORDS))]}y"
    text = ex.gold.title() + "." if right else f"{ex.gold.split()[0]} {wrong.split()[1]}" if near else wrong
    seq = int(request_id.rpartition(":")[2].partition(".")[0])
    text = spec.said[seq] if seq < len(spec.said) else text
    repeat = int(request_id.rpartition(":")[0].rpartition("-r")[2])
    reply: dict[str, Any] = {"text": text, "finish_reason": "stop", "tokens": 4}
    reply |= spec.reply(series, budget, repeat, seq) if spec.reply else {}
    counted = ex.token_len - (50 if spec.prompt_truncated else 0)
    usage: dict[str, Any] = {"prompt_tokens": counted, "completion_tokens": reply["tokens"]}
    usage["total_tokens"] = counted + (reply["tokens"] or 0)
    rows["telemetry"].append(_marks(request_id, ttft, latency, read, reply["tokens"], spec.cached_tokens))

    effective, evidence = None, None
    if spec.evidence != "unverified":
        did = ex.token_len if spec.evidence == "contradicted" else kept
        effective = float(did) if spec.unit == "tokens" and series != "full" else did / ex.token_len
        usage["kv"] = {
            "policy": series.partition("/")[0],
            "prompt_tokens": ex.token_len,
            "kept_tokens": did,
            "kept_fraction": did / ex.token_len,
            "bytes": did * 1024,
            "prefill_cached": False,
        }
        unit = "fraction" if series == "full" else spec.unit
        evidence = json.dumps({"requested": budget, "effective": effective, "unit": unit, "source": "echoed"})
    rows["responses"].append(
        {
            "request_id": request_id,
            "attempt_idx": 0,
            "text": reply["text"],
            "finish_reason": reply["finish_reason"],
            "tool_calls_json": reply.get("tool_calls_json"),
            "usage_json": json.dumps(usage),
            "kv_evidence_json": evidence,
            "kv_effective": effective,
            "created_at": NOW,
        }
    )


def _marks(
    request_id: str, ttft: float | None, latency: float | None, prompt: int, completion: int | None, cached: int | None
) -> Row:
    start = 1_000_000_000

    def at(seconds: float | None) -> int | None:
        return None if seconds is None else start + int(seconds * 1e9)

    first = at(None if ttft is None else ttft - 0.001)
    return {
        "request_id": request_id,
        "attempt_idx": 0,
        "scheduled_ns": start - 3_000_000,
        "dequeued_ns": start - 2_000_000,
        "limits_ns": start - 1_000_000,
        "conn_ready_ns": start - 500_000,
        "conn_reused": 1,
        "start_ns": start,
        "headers_sent_ns": start + 10_000,
        "body_sent_ns": start + 20_000,
        "status_ns": first,
        "first_byte_ns": first,
        "first_event_ns": first,
        "first_content_ns": at(ttft),
        "last_delta_ns": at(latency),
        "finish_ns": at(latency),
        "usage_ns": at(latency),
        "done_ns": at(latency),
        "end_ns": at(latency) or start + 60_000_000_000,
        "stamp_source": "user",
        "n_events": None if completion is None else completion + 3,
        "n_text_chunks": completion,
        "bytes_received": 900,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached_tokens": cached,
    }


def _rate(rate: Accuracy, series: str, budget: float, bin_idx: int) -> float:
    if callable(rate):
        return float(rate(series, budget, bin_idx))
    return float(rate[budget]) if isinstance(rate, Mapping) else float(rate)


def _session(spec: Spec) -> str:
    return f"session-{spec.exp_group_id}-g{spec.generation}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
