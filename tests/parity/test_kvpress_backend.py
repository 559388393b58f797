"""`kvt serve --backend kvpress` with the reference model on a CPU (`make test-parity`): the same answers and the same
evidence as the numpy server, transformers' own answers at full cache, and a model that is the same after every request.
"""

import asyncio
import resource
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kvpress")  # the extra: what is below needs it to be imported at all

import aiohttp
import numpy as np
import torch

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources.kvtext import chat
from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.kv_request import parse_kv
from kvt_async.serve.kvpress_engine import KvpressEngine
from kvt_async.serve.kvpress_model import load
from kvt_async.serve.kvpress_presses import Presses
from kvt_async.serve.weights import REFERENCE_DIR
from kvt_async.serve.work import Finished, Text, Usage, Work
from tests.parity.kvpress_server import kvpress_engine, served
from tests.serve.support import Api, body, example

pytestmark = pytest.mark.parity

AGNOSTIC = "question_agnostic"
SHARED = ("snapkv", "streaming_llm", "tova", "knorm", "observed_attention", "h2o", "expected_attention")


@pytest.fixture(scope="module")
def engine() -> KvpressEngine:
    return kvpress_engine()


def ids_of(engine: KvpressEngine, tokens: int, seed: int = 7) -> np.ndarray:
    return engine.tokenizer.encode(" ".join(chat(example(tokens, seed))), special=False).ids


def ask(engine: KvpressEngine, kv: dict[str, Any] | None, tokens: int = 200, **fields: Any) -> tuple[str, Usage]:
    ids = ids_of(engine, tokens)
    *texts, end = engine.generate(Work(ids, 6, parse_kv(kv, engine.policies), ignore_eos=True, **fields))
    assert isinstance(end, Finished)
    return "".join(text.text for text in texts if isinstance(text, Text)), end.usage


def state_of(model: Any) -> dict[str, Any]:
    """Everything a request could leave behind: attributes, submodules, hooks, flags, weights."""
    modules = {
        name: sorted(
            (key, id(value) if not isinstance(value, dict) else sorted(value)) for key, value in vars(m).items()
        )
        for name, m in model.named_modules()
    }
    weights = sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
    flags = [p.requires_grad for p in model.parameters()]
    return {"modules": modules, "weights": weights, "flags": flags, "attention": model.config._attn_implementation}


# ---- answers


@pytest.mark.parametrize(("tokens", "seed"), [(128, 1), (300, 2), (700, 3), (1500, 4)])
def test_full_cache_answers_are_transformers_generate(engine: KvpressEngine, tokens: int, seed: int) -> None:
    ids = ids_of(engine, tokens, seed)
    events = engine.generate(Work(ids, 8, ignore_eos=True))
    text = "".join(event.text for event in events if isinstance(event, Text))
    made = engine._model.generate(
        torch.from_numpy(ids)[None], max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=None
    )
    assert text == engine.tokenizer.decode(made[0, len(ids) :].tolist())


async def test_answers_and_evidence_equal_the_numpy_servers_on_at_least_95_percent_of_demo_like_requests(
    engine: KvpressEngine,
) -> None:
    """Every shared policy, both modes and both first-token conventions over the demo's budgets and lengths.

    What differs are ties: kvpress keeps any of the entries that score alike (within SnapKV's window when fewer than the
    window are kept; sums in another order), the numpy server the newest.
    """
    requests = []
    for n, (tokens, policy) in enumerate((t, p) for t in (150, 260, 450, 800) for p in SHARED):
        ex = example(tokens, seed=40 + n)
        agnostic = {"mode": AGNOSTIC, "context_chars": len(ex.context)}
        for budget in (0.8, 0.5, 0.3, 0.1):
            for how in ({}, {"first_token": "full"}, agnostic):
                requests.append(body(ex, {"policy": policy, "budget": budget, **how}))
        requests.append(body(ex, {"policy": "full"}))
    differing: Counter[tuple[str, bool]] = Counter()
    async with served(engine) as theirs, served(None) as ours:
        for request in requests:
            (status, found), (_, expected) = await theirs.post(request), await ours.post(request)
            assert status == 200, found
            evidence, reference = found["usage"]["kv"], expected["usage"]["kv"]
            for reply in (found, expected):  # the peak grows with the answer, and some answers differ
                reply["usage"]["kv"]["peak_tokens"] -= reply["usage"]["completion_tokens"]
            assert {**evidence, "prefill_cached": reference["prefill_cached"]} == reference
            if found["choices"][0]["message"] != expected["choices"][0]["message"]:
                kept = reference["kept_tokens"]
                differing[(request["kv"]["policy"], kept < 32)] += 1
    print(f"{sum(differing.values())} of {len(requests)} differ: {dict(differing)}")
    assert sum(differing.values()) <= 0.05 * len(requests), differing


def test_a_budget_in_tokens_keeps_that_many(engine: KvpressEngine) -> None:
    for keep in (40, 77, 199):
        assert ask(engine, {"policy": "snapkv", "keep_tokens": keep})[1].kept_tokens == keep


def test_random_repeats_itself_and_another_seed_draws_otherwise(engine: KvpressEngine) -> None:
    kv = {"policy": "random", "budget": 0.5}
    first = [ask(engine, kv, tokens)[0] for tokens in (200, 300, 400)]
    assert [ask(engine, kv, tokens)[0] for tokens in (200, 300, 400)] == first
    assert [ask(engine, kv | {"params": {"seed": 1}}, tokens)[0] for tokens in (200, 300, 400)] != first


# ---- any press


@pytest.mark.parametrize(
    "press", ["pyramidkv", "keydiff", "lagkv", "cur", "kvzip", "adakv_snapkv", "chunkkv_snapkv", "critical_snapkv",
              "critical_adakv_expected_attention", "SnapKVPress"],
)  # fmt: skip
@pytest.mark.parametrize("how", [{}, {"first_token": "full"}])
def test_a_press_of_kvpress_is_applied_and_its_evidence_is_read_from_the_cache(
    engine: KvpressEngine, press: str, how: dict[str, Any]
) -> None:
    _, usage = ask(engine, {"policy": press, "budget": 0.4, **how}, tokens=400)
    assert usage.kept_fraction == pytest.approx(0.4, abs=0.005)
    masks = press in ("kvzip", "adakv_snapkv", "critical_adakv_expected_attention")
    assert usage.bytes == 2048 * (400 if masks else usage.kept_tokens)  # what is masked still takes memory


def test_a_press_that_moves_keys_wants_the_first_token_full_and_then_goes_on_from_its_own_positions(
    engine: KvpressEngine,
) -> None:
    with pytest.raises(ApiError, match="must be 'full' with key_rerotation_snapkv"):
        ask(engine, {"policy": "key_rerotation_snapkv", "budget": 0.5})
    text, usage = ask(engine, {"policy": "key_rerotation_snapkv", "budget": 0.9, "first_token": "full"})
    assert usage.kept_tokens == 180
    assert " ".join(text.split()[:2]) in example(200).answers


# ---- the model afterwards


@pytest.mark.parametrize("policy", ["snapkv", "observed_attention", "adakv_snapkv", "kvzip", "kvgrad", "kvcompose"])
def test_the_model_is_the_same_after_a_request(engine: KvpressEngine, policy: str) -> None:
    before, alone = state_of(engine._model), ask(engine, None)
    ask(engine, {"policy": policy, "budget": 0.5})
    assert state_of(engine._model) == before
    assert ask(engine, None) == alone


@pytest.mark.parametrize("policy", ["qfilter", "lukv", "adakv_observed_attention"])
def test_the_model_is_the_same_after_a_press_that_fails_on_it(engine: KvpressEngine, policy: str) -> None:
    before, alone = state_of(engine._model), ask(engine, None)
    with pytest.raises(ApiError, match=f"{policy} can't be used with reference") as refused:
        ask(engine, {"policy": policy, "budget": 0.5})
    assert (refused.value.status, refused.value.code) == (400, "press_not_usable")
    assert state_of(engine._model) == before
    assert ask(engine, None) == alone


def test_the_model_is_the_same_after_a_client_that_left_in_the_middle(engine: KvpressEngine) -> None:
    before = state_of(engine._model)
    kv = parse_kv({"policy": "adakv_snapkv", "budget": 0.5}, engine.policies)
    events = engine.generate(Work(ids_of(engine, 200), 6, kv, ignore_eos=True))
    assert isinstance(next(events), Text)
    events.close()
    assert state_of(engine._model) == before


# ---- refusals


@pytest.mark.parametrize(
    ("kv", "param", "words"),
    [
        ({"policy": "snapk", "budget": 0.5}, "kv.policy", "did you mean 'snapkv'?"),
        ({"policy": "adakv_snapk", "budget": 0.5}, "kv.policy", "did you mean 'adakv_snapkv'?"),
        ({"policy": "think", "budget": 0.5}, "kv.policy", "ThinKPress has no ratio"),
        ({"policy": "adakv", "budget": 0.5}, "kv.policy", "goes around another press: adakv_snapkv"),
        ({"policy": "finch", "budget": 0.5}, "kv.policy", "a token of its own"),
        ({"policy": "snapkv", "budget": 0.5, "params": {"windw": 8}}, "kv.params.windw", "did you mean 'window'?"),
        ({"policy": "snapkv", "budget": 0.5, "params": {"window": "8"}}, "kv.params.window", "must be int"),
        ({"policy": "adakv_snapkv", "budget": 0.5, "params": {"alpha_safeguard": 2}}, "kv.params", "be in [0, 1]"),
        ({"policy": "kvzip", "budget": 0.5, "params": {"protect_recent": 8}}, "kv.params.protect_recent", "scoring"),
        ({"policy": "snapkv", "budget": 0.5, "params": {"window": 200}}, "kv.params.window", "at least 201 tokens"),
        ({"budget": 0.5}, "kv.policy", "is needed"),
    ],
)  # fmt: skip
async def test_a_refusal_names_what_is_wrong(engine: KvpressEngine, kv: dict[str, Any], param: str, words: str) -> None:
    async with served(engine) as api:
        status, reply = await api.post(body(example(200), kv))
    assert status == 400
    assert reply["error"]["param"] == param
    assert words in reply["error"]["message"]


async def test_press_is_the_policy_of_requests_that_name_none() -> None:
    async with served(kvpress_engine("knorm")) as api:
        _, budget_only = await api.post(body(example(200), {"budget": 0.5}))
        _, other = await api.post(body(example(200), {"policy": "tova", "budget": 0.5}))
        _, nothing = await api.post(body(example(200)))
    assert [reply["usage"]["kv"]["policy"] for reply in (budget_only, other, nothing)] == ["knorm", "tova", "full"]


def test_a_wrong_press_model_or_device_is_said_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'snapkv'"):
        Presses("snapk")
    with pytest.raises(ConfigError, match="no such folder"):
        load(str(tmp_path / "nowhere"), device="cpu", dtype="auto")
    with pytest.raises(ConfigError, match="'gpu' can't be used"):
        load(str(REFERENCE_DIR), device="gpu", dtype="auto")


# ---- over HTTP


async def test_a_stream_equals_the_whole_reply_and_ends_with_the_evidence(engine: KvpressEngine) -> None:
    request = body(example(200), {"policy": "snapkv", "budget": 0.5}, ignore_eos=True)
    async with served(engine) as api:
        *chunks, usage, done = await api.stream(request | {"stream_options": {"include_usage": True}})
        _, whole = await api.post(request)
    assert done == "[DONE]"
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert whole["choices"][0]["message"]["content"] == streamed
    assert len(chunks) > 4
    assert usage["usage"] == whole["usage"]
    assert whole["usage"]["kv"] == {
        "policy": "snapkv", "mode": "question_aware", "prompt_tokens": 200, "compressible_tokens": 200,
        "kept_tokens": 100, "kept_fraction": 0.5, "when": "prefill", "n_compressions": 0, "compressed_tokens": None,
        "peak_tokens": 99 + whole["usage"]["completion_tokens"], "bytes": 100 * 2048, "prefill_cached": False,
    }  # fmt: skip


async def test_sampling_with_a_seed_repeats_and_requests_beside_each_other_change_nothing(
    engine: KvpressEngine,
) -> None:
    requests = [
        body(example(180, seed), {"policy": "random", "budget": 0.5}, temperature=2.0, seed=3) for seed in (1, 2, 3)
    ]
    async with served(engine) as api:
        alone = [(await api.post(request))[1]["choices"] for request in requests]
        together = await asyncio.gather(*(api.post(request) for request in requests))
        other = (await api.post(requests[0] | {"seed": 4, "ignore_eos": True}))[1]["choices"]
    assert [reply["choices"] for _, reply in together] == alone
    assert other != alone[0]


async def test_version_and_metrics_say_what_serves(engine: KvpressEngine) -> None:
    async with served(engine) as api:
        version, metrics = (await api.get("/version"))[1], (await api.get("/metrics"))[1]
    assert '"backend":"kvpress"' in version
    assert '"kvpress":"0.5.5"' in version
    assert 'cache_dtype="float32"' in metrics
    assert 'enable_prefix_caching="False"' in metrics


def grow_at_most(pid: int, more: int) -> None:
    """Let the process have this many bytes of address space more than it has now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit and /proc")
async def test_out_of_memory_is_a_507_and_the_server_answers_the_next_request() -> None:
    """A real process whose memory really ends: eager attention over a long prompt needs a matrix of its square."""
    command = [
        sys.executable,
        "-m",
        "kvt_async.serve",
        "--port",
        "0",
        "--backend",
        "kvpress",
        "--model",
        str(REFERENCE_DIR),
    ]
    server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        async with asyncio.timeout(240), aiohttp.ClientSession() as session:
            line = (await server.stdout.readline()).decode()
            api = Api(line.removeprefix("listening on ").strip().removesuffix("/v1"), session)
            small = body(example(150), {"policy": "observed_attention", "budget": 0.5})
            _, before = await api.post(small)
            grow_at_most(server.pid, 48 << 20)
            large = body(example(2000), {"policy": "observed_attention", "budget": 0.5})
            for request in (large, large | {"stream": True}):
                status, reply = await api.post(request)
                assert (status, reply["error"]["code"]) == (507, "out_of_memory"), reply
                assert reply["error"]["type"] == "insufficient_storage"
            status, after = await api.post(small)
            assert (status, after["choices"]) == (200, before["choices"])
    finally:
        server.terminate()
        await server.wait()
