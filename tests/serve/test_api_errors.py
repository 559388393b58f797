"""Every request that can't be understood: its status, its code, and a message that says what to do."""

import gzip
from typing import Any

import pytest

from tests.serve.support import WEATHER, Api, example

EX = example(150)
CHAT = {"messages": [{"role": "user", "content": f"{EX.context} {EX.question}"}], "temperature": 0, "max_tokens": 2}


def kv(**fields: object) -> dict[str, object]:
    return CHAT | {"kv": fields}


WRONG = {
    "an unknown policy": (kv(policy="snapvk", budget=0.5), "did you mean 'snapkv'"),
    "an unknown kv field": (kv(policy="snapkv", budgte=0.5), "did you mean 'budget'"),
    "an unknown parameter": (kv(policy="snapkv", budget=0.5, params={"windw": 8}), "did you mean 'window'"),
    "another policy's parameter": (kv(policy="tova", budget=0.5, params={"sinks": 8}), "not a parameter of tova"),
    "a budget of 0": (kv(policy="snapkv", budget=0), "must be in (0, 1]"),
    "a budget above 1": (kv(policy="snapkv", budget=1.5), "must be in (0, 1]"),
    "a budget in words": (kv(policy="snapkv", budget="0.5"), "must be a number"),
    "a boolean budget": (kv(policy="snapkv", budget=True), "must be a number"),
    "keep_tokens 0": (kv(policy="snapkv", keep_tokens=0), "at least 1"),
    "budget and keep_tokens": (kv(policy="snapkv", budget=0.5, keep_tokens=9), "exclude each other"),
    "a policy without an amount": (kv(policy="snapkv"), "budget or kv.keep_tokens is needed"),
    "an amount without a policy": (kv(budget=0.5), "kv.policy is needed"),
    "full with a budget": (kv(policy="full", budget=0.5), "keeps everything"),
    "full with parameters": (kv(policy="full", params={"window": 3}), "takes none"),
    "an unknown mode": (kv(policy="snapkv", budget=0.5, mode="question_awre"), "did you mean 'question_aware'"),
    "agnostic without a context": (kv(policy="snapkv", budget=0.5, mode="question_agnostic"), "number of characters"),
    "agnostic with the first token free": (
        kv(policy="snapkv", budget=0.5, mode="question_agnostic", context_chars=9, first_token="full"),
        "question_aware only",
    ),
    "a context that cuts a word": (
        kv(policy="snapkv", budget=0.5, mode="question_agnostic", context_chars=len(EX.context.split()[0]) - 1),
        "inside a token",
    ),
    "a context beyond the message": (
        kv(policy="snapkv", budget=0.5, mode="question_agnostic", context_chars=10**6),
        "more than the",
    ),
    "a context of all messages": (
        kv(policy="snapkv", budget=0.5, mode="question_agnostic", context_messages=1),
        "no message to read",
    ),
    "a context of messages and of characters": (
        kv(policy="snapkv", budget=0.5, mode="question_agnostic", context_messages=1, context_chars=9),
        "exclude each other",
    ),
    "an even kernel": (kv(policy="snapkv", budget=0.5, params={"kernel": 4}), "must be odd"),
    "a negative parameter": (kv(policy="random", budget=0.5, params={"protect_recent": -1}), "at least 0"),
    "kv that is no object": (CHAT | {"kv": "snapkv"}, "must be an object"),
    "no messages": ({"messages": []}, "non-empty array"),
    "a message without content": ({"messages": [{"role": "user"}]}, "must be a string"),
    "a role that the template refuses": ({"messages": [{"role": "tool", "content": "x"}]}, "template refuses"),
    "an answer to go on from that isn't there": (
        CHAT | {"continue_final_message": True, "add_generation_prompt": False},
        "last message of the assistant",
    ),
    "an answer to go on from in a new turn": (CHAT | {"continue_final_message": True}, "add_generation_prompt = false"),
    "no turn to answer in": (CHAT | {"add_generation_prompt": False}, "with continue_final_message"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text parts only"),
    "max_tokens 0": (CHAT | {"max_tokens": 0}, "at least 1"),
    "a temperature below 0": (CHAT | {"temperature": -1}, "from 0 to 2"),
    "two answers": (CHAT | {"n": 2}, "not implemented"),
    "tools that the template leaves out": (
        CHAT | {"tools": [WEATHER]},
        "chat template of this model doesn't write them",
    ),
    "tools that are no list": (CHAT | {"tools": WEATHER}, "array of function definitions"),
    "a tool without a name": (CHAT | {"tools": [{"type": "function", "function": {}}]}, "tools[0] must be"),
    "a call that must be made": (CHAT | {"tools": [WEATHER], "tool_choice": "required"}, "auto or none"),
    "log probabilities": (CHAT | {"logprobs": True}, "not implemented"),
    "stream_options without stream": (CHAT | {"stream_options": {"include_usage": True}}, "needs stream"),
    "an empty stop": (CHAT | {"stop": ""}, "stop must be"),
    "a number as stop": (CHAT | {"stop": [1]}, "stop must be"),
    "no object": (b"[1]", "JSON object"),
    "no JSON": (b"{oops", "not JSON"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_request_is_a_400_in_openais_shape_that_says_what_to_do(api: Api, case: Any) -> None:
    request, says = WRONG[case]
    status, reply = await api.post(request)
    assert status == 400
    assert set(reply) == {"error"}
    assert set(reply["error"]) == {"message", "type", "param", "code"}
    assert reply["error"]["type"] == "invalid_request_error"
    assert says in reply["error"]["message"]
    assert "Traceback" not in reply["error"]["message"]


async def test_a_prompt_and_answer_longer_than_the_model_is_context_length_exceeded(api: Api) -> None:
    status, reply = await api.post(CHAT | {"max_tokens": 4000})
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    assert "4096 tokens" in reply["error"]["message"]
    assert "150 in the prompt" in reply["error"]["message"]


async def test_a_completion_takes_no_tools(api: Api) -> None:
    status, reply = await api.post({"prompt": "a", "tools": [WEATHER]}, "/v1/completions")
    assert (status, reply["error"]["param"]) == (400, "tools")


async def test_another_model_is_model_not_found(api: Api) -> None:
    status, reply = await api.post(CHAT | {"model": "gpt-4"})
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (404, "model_not_found", "model")
    assert "'reference'" in reply["error"]["message"]


async def test_unknown_paths_and_methods_are_errors_in_the_same_shape(api: Api) -> None:
    assert (await api.post(CHAT, "/v1/embeddings"))[1]["error"]["type"] == "NotFoundError"
    status, text = await api.get("/v1/chat/completions")
    assert status == 405
    assert '"error"' in text


async def test_unknown_fields_outside_kv_are_ignored_and_standard_ones_accepted(api: Api) -> None:
    extra = {"banana": 1, "user": "me", "n": 1, "top_p": 0.9, "seed": 1, "stop": None, "frequency_penalty": 0}
    status, reply = await api.post(CHAT | extra | {"max_completion_tokens": 3, "max_tokens": 1, "ignore_eos": True})
    assert status == 200
    assert reply["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("prompt", [None, [], ["a", "b"], [-1], [99999], [10**18], {"a": 1}, ""])
async def test_a_completion_needs_one_prompt(api: Api, prompt: Any) -> None:
    status, reply = await api.post({"prompt": prompt}, "/v1/completions")
    assert (status, reply["error"]["param"]) == (400, "prompt")


async def test_a_prompt_far_too_long_is_refused_before_a_template_or_a_tokenizer_reads_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("kvt_async.serve.prompt_format.ChatTemplate.render", too_late)
    monkeypatch.setattr("kvt_async.serve.tokenizer.Tokenizer.encode", too_late)
    monkeypatch.setattr("kvt_async.serve.tokenizer.Tokenizer.fits", too_late)
    words = "look " * 1_000_000
    many = [{"role": "user", "content": "a"}] * 5000
    for request, path in (
        ({"messages": [{"role": "user", "content": words}]}, "/v1/chat/completions"),
        ({"messages": many}, "/v1/chat/completions"),
        ({"prompt": words}, "/v1/completions"),
        ({"prompt": [1] * 5000}, "/v1/completions"),
    ):
        status, reply = await api.post(request, path)
        assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 4096 tokens" in reply["error"]["message"]


@pytest.mark.parametrize("name", ["tools", "n", "kv", "model", "temperature", "messages", "max_tokens", "seed"])
@pytest.mark.parametrize(
    "value", [b"[" * 1000 + b"]" * 1000, b'{"a":' * 900 + b"1" + b"}" * 900, b'"' + b"x" * 5_000_000 + b'"']
)
async def test_a_value_however_deep_or_long_is_a_short_400_of_the_api(api: Api, name: str, value: Any) -> None:
    request = b'{"messages": [{"role": "user", "content": "a"}], "%s": %s}' % (name.encode(), value)
    status, reply = await api.post(request)
    assert status in (400, 404), reply
    assert set(reply["error"]) == {"message", "type", "param", "code"}
    assert len(str(reply)) < 3000


@pytest.mark.parametrize(
    ("policy", "params"),
    [("snapkv", {"kernel": 2**40 + 1}), ("snapkv", {"kernel": 1001}), ("expected_attention", {"future": 2**40})],
)
async def test_a_parameter_that_costs_work_of_its_own_size_is_bounded(api: Api, policy: str, params: Any) -> None:
    status, reply = await api.post(kv(policy=policy, budget=0.5, params=params))
    assert (status, reply["error"]["code"]) == (400, "invalid_kv")
    assert "at most" in reply["error"]["message"]


@pytest.mark.parametrize("param", ["window", "sinks", "protect_recent", "seed"])
async def test_a_parameter_that_costs_nothing_may_be_any_number(api: Api, param: str) -> None:
    policy = {"window": "snapkv", "sinks": "streaming_llm", "protect_recent": "knorm", "seed": "random"}[param]
    status, _ = await api.post(kv(policy=policy, budget=0.5, params={param: 2**63}))
    assert status == 200


async def test_a_body_larger_than_any_prompt_is_413_and_one_that_cannot_be_decoded_400(api: Api) -> None:
    status, reply = await api.post(b" " * (8 << 20) + b"{}")
    assert (status, reply["error"]["code"]) == (413, "body_too_large")
    bomb = gzip.compress(b" " * (64 << 20))
    for data, expected in ((bomb, (413, "body_too_large")), (b"no gzip", (400, "invalid_body"))):
        headers = {"Content-Encoding": "gzip"}
        async with api.session.post(f"{api.base}/v1/completions", data=data, headers=headers) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == expected
