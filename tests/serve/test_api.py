"""The API as a client sees it: streams, bodies, usage, models, metrics."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kvt_async.serve.app import make_app
from tests.serve.support import TOOLS_HEAD, WEATHER, Api, Encode, body, example, parse_metrics, start, with_tools

AGNOSTIC = "question_agnostic"


async def test_a_chat_stream_is_role_then_a_chunk_per_token_then_finish_usage_and_done(api: Api) -> None:
    request = body(example(200), max_tokens=4, ignore_eos=True, stream_options={"include_usage": True})
    *chunks, done = await api.stream(request)
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    role, *texts, finish, usage = chunks
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(texts) <= 4
    assert all(chunk["choices"][0]["delta"]["content"] for chunk in texts)
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({}, "length")
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4
    assert all(chunk["usage"] is None for chunk in (role, *texts, finish))


async def test_a_completion_stream_has_text_and_no_role_and_usage_only_if_asked(api: Api) -> None:
    *chunks, done = await api.stream({"prompt": "<bos> <user> look", "temperature": 0}, "/v1/completions")
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert all("usage" not in chunk and "text" in chunk["choices"][0] for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("kv", [None, {"policy": "snapkv", "budget": 0.3}, {"policy": "random", "keep_tokens": 20}])
async def test_streamed_text_equals_the_whole_reply(api: Api, kv: dict[str, Any] | None) -> None:
    request = body(example(200), kv, ignore_eos=True)
    chunks = await api.stream(request)
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    status, whole = await api.post(request)
    assert status == 200
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": streamed}
    assert whole["object"] == "chat.completion"


async def test_a_completion_of_the_rendered_text_or_its_ids_is_the_chat_reply(api: Api, encode: Encode) -> None:
    ex = example(200)
    _, chat = await api.post(body(ex))
    rendered = f"<bos> <user> {ex.context} {ex.question} <assistant>"
    for prompt in (rendered, [rendered], encode(ex).tolist()):
        _, plain = await api.post({"prompt": prompt, "max_tokens": 6, "temperature": 0}, "/v1/completions")
        assert plain["choices"][0]["text"] == chat["choices"][0]["message"]["content"]


async def test_an_answer_goes_on_from_the_assistants_last_message(api: Api, encode: Encode) -> None:
    ex = example(200)
    _, whole = await api.post(body(ex, max_tokens=4, ignore_eos=True))
    first, _, rest = whole["choices"][0]["message"]["content"].partition(" ")
    begun = [*body(ex)["messages"], {"role": "assistant", "content": f" {first} "}]
    goes_on = {"continue_final_message": True, "add_generation_prompt": False}
    _, reply = await api.post(body(ex, max_tokens=3, ignore_eos=True) | {"messages": begun} | goes_on)
    assert reply["choices"][0]["message"]["content"].split() == rest.split()
    assert reply["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"] + 1
    kv = {"policy": "snapkv", "budget": 0.5, "mode": "question_agnostic", "context_chars": len(ex.context)}
    _, cut = await api.post(body(ex, kv) | {"messages": begun} | goes_on)
    assert cut["usage"]["kv"]["kept_fraction"] == pytest.approx(0.5, abs=0.02)  # of the context, as without it


async def test_a_context_of_messages_is_compressed_as_the_same_context_in_characters(api: Api) -> None:
    ex = example(200)
    split = [{"role": "user", "content": ex.context}, {"role": "user", "content": ex.question}]
    kv = {"policy": "snapkv", "budget": 0.5, "mode": AGNOSTIC}
    _, by_messages = await api.post(body(ex, kv | {"context_messages": 1}, messages=split))
    _, by_chars = await api.post(body(ex, kv | {"context_chars": len(ex.context)}, messages=split))
    assert by_messages["usage"]["kv"] | {"prefill_cached": True} == by_chars["usage"]["kv"]
    assert by_messages["choices"][0]["message"] == by_chars["choices"][0]["message"]


async def test_usage_carries_the_evidence_of_what_was_evicted(api: Api) -> None:
    ex = example(200)
    _, first = await api.post(body(ex, {"policy": "snapkv", "budget": 0.25}))
    assert first["usage"]["kv"] == {
        "policy": "snapkv", "mode": "question_aware", "prompt_tokens": 200, "compressible_tokens": 200,
        "kept_tokens": 50, "kept_fraction": 0.25, "when": "prefill", "n_compressions": 0, "compressed_tokens": None,
        "peak_tokens": 49 + first["usage"]["completion_tokens"], "bytes": 50 * 2048, "prefill_cached": False,
    }  # fmt: skip
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    context = ex.meta["context_tokens"] + 2
    agnostic = {"policy": "snapkv", "budget": 0.5, "mode": AGNOSTIC, "context_chars": len(ex.context)}
    _, second = await api.post(body(ex, agnostic))
    usage = second["usage"]["kv"]
    assert (usage["compressible_tokens"], usage["kept_tokens"]) == (context, int(context * 0.5))
    assert usage["kept_fraction"] == usage["kept_tokens"] / context
    assert usage["bytes"] == (usage["kept_tokens"] + 200 - context) * 2048
    assert usage["prefill_cached"] is True
    assert second["usage"]["prompt_tokens_details"] == {"cached_tokens": 200}


async def test_usage_says_what_was_held_while_an_answer_was_generated(api: Api) -> None:
    kv = {"policy": "knorm", "keep_tokens": 60, "params": {"compression_interval": 16}}
    for when, peak in (("decode", 216), ("both", 76)):
        request = body(example(200), kv | {"when": when}, max_tokens=41, ignore_eos=True)
        _, reply = await api.post(request)
        assert reply["usage"]["kv"] == {
            "policy": "knorm", "mode": "question_aware", "when": when, "prompt_tokens": 200, "compressible_tokens": 200,
            "kept_tokens": 68, "kept_fraction": 60 / (200 if when == "both" else 216), "n_compressions": 2,
            "compressed_tokens": 60, "peak_tokens": peak, "bytes": peak * 2048, "prefill_cached": when == "both",
        }  # fmt: skip
        *_, usage, _ = await api.stream(request | {"stream_options": {"include_usage": True}})
        assert usage["usage"]["kv"] == reply["usage"]["kv"] | {"prefill_cached": True}
    samples = parse_metrics((await api.get("/metrics"))[1])
    assert samples['kvt:kv_compressions_total{model_name="reference",engine="0",policy="knorm"}'] == 8
    assert samples['kvt:kv_kept_tokens_total{model_name="reference",engine="0",policy="knorm"}'] == 2 * (200 + 60)


async def test_one_token_warms_the_prefill_for_every_later_budget_and_mode(api: Api) -> None:
    ex = example(300)
    await api.post(body(ex, {"policy": "full"}, max_tokens=1))
    agnostic = {"policy": "snapkv", "budget": 0.5, "mode": AGNOSTIC, "context_chars": len(ex.context)}
    for kv in (None, {"policy": "snapkv", "budget": 0.1}, agnostic):
        _, reply = await api.post(body(ex, kv))
        assert reply["usage"]["kv"]["prefill_cached"] is True


async def test_the_context_of_a_plain_prompt_is_counted_in_its_own_characters(api: Api) -> None:
    ex = example(200)
    context = f"<bos> <user> {ex.context}"
    kv = {"policy": "streaming_llm", "budget": 0.5, "mode": AGNOSTIC, "context_chars": len(context)}
    prompt = f"{context} {ex.question} <assistant>"
    status, reply = await api.post({"prompt": prompt, "temperature": 0, "kv": kv}, "/v1/completions")
    assert status == 200
    assert reply["usage"]["kv"]["compressible_tokens"] == len(context.split())


async def test_a_reply_does_not_depend_on_what_runs_beside_it(api: Api) -> None:
    requests = [
        body(example(180, seed), {"policy": policy, "budget": 0.4}, ignore_eos=True)
        for seed in (1, 2, 3)
        for policy in ("snapkv", "random", "streaming_llm")
    ]
    alone = [(await api.post(request))[1]["choices"] for request in requests]
    for _ in range(2):
        together = await asyncio.gather(*(api.post(request) for request in requests))
        assert [reply["choices"] for _, reply in together] == alone


async def test_sampling_with_a_seed_repeats(api: Api) -> None:
    request = body(example(200), temperature=2.0, seed=3, ignore_eos=True)
    replies = [(await api.post(request))[1]["choices"][0]["message"]["content"] for _ in range(2)]
    assert replies[0] == replies[1]
    other = (await api.post(request | {"seed": 4}))[1]["choices"][0]["message"]["content"]
    assert other != replies[0]


async def test_models_health_and_version(api: Api) -> None:
    status, models = await api.get("/v1/models")
    assert status == 200
    assert '"id":"reference"' in models
    assert '"max_model_len":4096' in models
    assert (await api.get("/health"))[0] == 200
    assert '"server":"kvt"' in (await api.get("/version"))[1]


async def test_metrics_are_prometheus_text_that_counts_what_was_done(api: Api) -> None:
    ex = example(200)
    for budget in (1.0, 0.5):
        await api.post(body(ex, {"policy": "snapkv", "budget": budget}, max_tokens=3, ignore_eos=True))
    await api.post({"messages": []})
    status, text = await api.get("/metrics")
    assert status == 200
    samples = parse_metrics(text)
    label = '{model_name="reference",engine="0"}'
    expected = {
        "vllm:prompt_tokens_total": 400, "vllm:generation_tokens_total": 6, "vllm:num_requests_running": 0,
        "vllm:num_requests_waiting": 0, "vllm:prefix_cache_queries_total": 400, "vllm:prefix_cache_hits_total": 200,
        "vllm:time_to_first_token_seconds_count": 2, "vllm:e2e_request_latency_seconds_count": 2,
    }  # fmt: skip
    assert {name: samples[name + label] for name in expected} == expected
    assert 0 < samples["vllm:kv_cache_usage_perc" + label] < 1
    assert any(name.startswith("vllm:cache_config_info{") and 'block_size="1"' in name for name in samples)
    policy = label.replace("}", ',policy="snapkv"}')
    assert samples["kvt:kv_kept_tokens_total" + policy] == 300
    assert samples["kvt:request_errors_total" + label.replace("}", ',status="400"}')] == 1
    buckets = [v for k, v in samples.items() if k.startswith("vllm:e2e_request_latency_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 2


async def test_tools_are_part_of_the_prompt_where_the_template_writes_them(tmp_path: Path) -> None:
    runner, base = await start(make_app(with_tools(tmp_path, TOOLS_HEAD), prefill_cache_mb=16, max_queue=4))
    async with aiohttp.ClientSession() as session:
        api, ex = Api(base, session), example(200)
        _, without = await api.post(body(ex))
        status, offered = await api.post(body(ex, tools=[WEATHER], tool_choice="auto"))
        assert (status, offered["usage"]["prompt_tokens"]) == (200, without["usage"]["prompt_tokens"] + 2)
        agnostic = {"policy": "snapkv", "budget": 0.5, "mode": AGNOSTIC, "context_chars": len(ex.context)}
        _, evicted = await api.post(body(ex, agnostic, tools=[WEATHER]))
        _, plainly = await api.post(body(ex, agnostic))
        context = [reply["usage"]["kv"]["compressible_tokens"] for reply in (evicted, plainly)]
        assert context[0] == context[1] + 2
    await runner.cleanup()
