"""The request body: our fields, then extra_body, then the level's KV fields; types preserved."""

import json
from typing import Any

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.kv_budget import n_kept
from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import Apply
from kvt_async.engine.request.chat_body import build_body
from kvt_async.engine.request.kv_evidence import expectation, read_evidence
from kvt_async.engine.request.kv_fields import PromptSize, check_template, kv_fields
from kvt_async.records import Json, Level

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
SIZE = PromptSize(prompt_tokens=1000, context_tokens=800, context_chars=4000)


def level(body: Json | None = None, **fields: Any) -> Level:
    given: Json = {
        "series": "snapkv/aware",
        "policy": "snapkv",
        "budget": 0.2,
        "unit": "fraction",
        "mode": "question_aware",
        "params": {"window": 32},
        "is_full": False,
        "apply_via": "body" if body is not None else "none",
        "apply": {"via": "body", "body": body} if body is not None else {"via": "none"},
        "evidence": {},
    }
    return Level(**(given | fields))


FULL = {"policy": "full", "series": "full", "budget": 1.0, "is_full": True, "params": {}}


def sent(config: Json, at: Level, size: PromptSize = SIZE) -> Json:
    found: Json = json.loads(build_body(Settings.model_validate(config), MESSAGES, at, size))
    return found


def test_a_chat_body_asks_for_a_stream_with_usage() -> None:
    body = sent({"model": {"name": "m"}, "decoding": {"seed": 1, "stop": ["\n"]}}, level())
    assert body == {
        "model": "m",
        "messages": MESSAGES,
        "temperature": 0,
        "max_tokens": 256,
        "seed": 1,
        "stop": ["\n"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_completions_send_one_prompt() -> None:
    body = sent({"prompt": {"endpoint": "completions"}}, level())
    assert body["prompt"] == "s\n\nu"
    assert "messages" not in body


@pytest.mark.parametrize(
    ("engine", "asked"),
    [({}, True), ({"stream_usage": "always"}, True), ({"stream_usage": "never"}, False), ({"stream": False}, False)],
)
def test_usage_is_asked_for_unless_told_never_or_not_streamed(engine: Json, asked: bool) -> None:
    assert ("stream_options" in sent({"engine": engine}, level())) is asked


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({}, "max_tokens"),
        ({"engine": {"base_url": "https://api.openai.com/v1"}}, "max_completion_tokens"),
        ({"engine": {"base_url": "https://api.openai.com.example/v1"}}, "max_tokens"),
        ({"decoding": {"max_tokens_field": "max_completion_tokens"}}, "max_completion_tokens"),
        (
            {"engine": {"base_url": "https://api.openai.com/v1"}, "decoding": {"max_tokens_field": "max_tokens"}},
            "max_tokens",
        ),
    ],
)
def test_the_limit_is_named_as_the_server_knows_it(config: Json, name: str) -> None:
    assert {"max_tokens", "max_completion_tokens"} & set(sent(config, level())) == {name}


def test_extra_body_and_kv_fields_merge_deeply_over_ours() -> None:
    at = level({"kv": {"policy": "{policy}"}, "stream_options": {"x": 1}})
    body = sent({"decoding": {"extra_body": {"kv": {"a": 1, "policy": "other"}, "temperature": 0.5}}}, at)
    assert body["kv"] == {"a": 1, "policy": "snapkv"}
    assert body["stream_options"] == {"include_usage": True, "x": 1}
    assert body["temperature"] == 0.5


def test_a_value_that_is_one_placeholder_keeps_its_type_and_an_embedded_one_becomes_text() -> None:
    template = {
        "budget": "{budget}",
        "keep": "{keep_tokens}",
        "ratio": "{compression_ratio}",
        "chars": "{context_chars}",
        "w": "{params.window}",
        "params": "{params}",
        "name": "{policy}-{budget}",
        "mode": "{mode}",
        "braces": "{{x}}",
        "list": ["{budget}", 1, True, None],
    }
    assert kv_fields(level(template), SIZE) == {
        "budget": 0.2,
        "keep": 199,
        "ratio": 0.8,
        "chars": 4000,
        "w": 32,
        "params": {"window": 32},
        "name": "snapkv-0.2",
        "mode": "question_aware",
        "braces": "{x}",
        "list": [0.2, 1, True, None],
    }


def test_full_cache_is_policy_full_and_budget_one() -> None:
    template = {"p": "{policy}", "b": "{budget}", "k": "{keep_tokens}", "r": "{compression_ratio}", "w": "{params.w}"}
    assert kv_fields(level(template, **FULL), SIZE) == {"p": "full", "b": 1.0, "k": 1000, "r": 0.0}


def test_tokens_kept_are_of_what_is_compressed() -> None:
    template = {"k": "{keep_tokens}", "r": "{compression_ratio}", "b": "{budget}"}
    agnostic = level(template, mode="question_agnostic", budget=0.5)
    assert kv_fields(agnostic, SIZE) == {"k": 400, "r": 0.5, "b": 0.5}
    capped = level(template, unit="tokens", budget=250.0)
    assert kv_fields(capped, SIZE) == {"k": 250, "r": 0.75, "b": 250}


def test_a_placeholder_without_a_value_drops_its_key() -> None:
    template = {"k": "{keep_tokens}", "text": "keep={keep_tokens}", "inner": {"c": "{context_chars}"}, "p": "{policy}"}
    assert kv_fields(level(template), PromptSize()) == {"inner": {}, "p": "snapkv"}


def test_rounding_of_tokens_kept_is_the_servers() -> None:
    assert [n_kept(10, b) for b in (1.0, 0.99, 0.5, 0.29, 0.05)] == [10, 9, 5, 2, 1]


def test_an_unknown_placeholder_names_its_key() -> None:
    apply = Apply(via="body", body={"kv": {"policy": "{polcy}"}})
    with pytest.raises(ConfigError) as caught:
        check_template(apply.body, "kv.apply.body", level(apply.body))
    assert "kv.apply.body.kv.policy" in str(caught.value)
    assert "{polcy}" in str(caught.value)


def test_a_parameter_that_the_level_lacks_names_key_and_level() -> None:
    apply = Apply(via="body", body={"list": [{"w": "{params.sinks}"}]})
    with pytest.raises(ConfigError) as caught:
        check_template(apply.body, "kv.apply.body", level(apply.body))
    assert "kv.apply.body.list[0].w" in str(caught.value)
    assert "snapkv/aware 0.2" in str(caught.value)
    # Full cache has no parameters: the key is dropped.
    check_template(apply.body, "kv.apply.body", level(apply.body, **FULL))


# ------------------------------------------------------------------ evidence


def evidence(found: Json, usage: Json | None = None, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return read_evidence(expectation(level(evidence=found, **fields), 1000), usage, headers or {})


def test_the_effective_budget_is_read_from_a_usage_field() -> None:
    got, effective = evidence({"usage": "kv.kept_fraction"}, {"kv": {"kept_fraction": 0.199, "kept_tokens": 199}})
    assert effective == 0.199
    assert got["source"] == "echoed"
    assert (got["requested"], got["effective"], got["unit"]) == (0.2, 0.199, "fraction")
    assert got["echo"]["kept_tokens"] == 199


def test_the_effective_budget_is_read_from_a_header() -> None:
    got, effective = evidence({"header": "X-KV-Kept"}, headers={"x-kv-kept": "0.25"})
    assert (got["source"], effective) == ("echoed", 0.25)


def test_tokens_echoed_for_a_fraction_are_converted_by_the_servers_own_prompt_count() -> None:
    usage = {"prompt_tokens": 500, "kv": {"kept_tokens": 100}}
    got, effective = evidence({"usage": "kv.kept_tokens", "unit": "tokens"}, usage)
    assert effective == 0.2
    assert (got["raw"], got["raw_unit"]) == (100.0, "tokens")


@pytest.mark.parametrize("usage", [None, {}, {"kv": None}, {"kv": {"kept_fraction": "a lot"}}, {"kv": 3}])
def test_evidence_that_is_not_there_is_no_evidence(usage: Json | None) -> None:
    got, effective = evidence({"usage": "kv.kept_fraction"}, usage)
    assert effective is None
    assert (got["source"], got["missing"]) == ("none", "usage.kv.kept_fraction")


def test_other_sources_say_where_the_evidence_will_come_from() -> None:
    assert evidence({"configured": True})[0]["source"] == "configured"
    assert evidence({"configured": True})[1] == 0.2
    assert evidence({"metric": "vllm:x"}) == (
        {"requested": 0.2, "effective": None, "unit": "fraction", "source": "none", "pending": "metric"},
        None,
    )
    assert evidence({})[0]["source"] == "none"


@pytest.mark.parametrize("field", ["temperature", "max_tokens", "stream_options", "seed"])
def test_a_null_in_extra_body_takes_a_field_out_whoever_put_it_there(field: str) -> None:
    assert field in sent({"decoding": {"seed": 1}}, level())
    assert field not in sent({"decoding": {"seed": 1, "extra_body": {field: None}}}, level())


def test_no_temperature_is_sent_where_the_config_has_none() -> None:
    assert "temperature" not in sent({"decoding": {"temperature": None}}, level())
