"""The bodies of a level's prompts, made from parts that are encoded once: the same bytes as made one by one."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.formulas.prompt_text import render
from kvt_async.contract.settings import Settings
from kvt_async.engine.request.chat_body import build_body
from kvt_async.engine.request.encoded_bodies import LevelPayloads
from kvt_async.engine.request.kv_fields import NAMES, PromptSize
from kvt_async.records import Json, Level
from tests.engine.test_chat_body import FULL, level

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
awkward = texts | st.sampled_from(["", "\0", "\0context\0", '"\\', "{question}", "{context}", "\u2028", "\x7f"])
lengths = st.none() | st.integers(0, 5000)
placeholders = st.sampled_from([f"{{{name}}}" for name in NAMES] + ["{params.window}", "keep={keep_tokens}", "{{x}}"])
leaves = placeholders | st.none() | st.booleans() | st.integers(-5, 5) | awkward.filter(lambda text: "{" not in text)
nodes = st.recursive(leaves, lambda kids: st.lists(kids, max_size=3) | st.dictionaries(texts, kids, max_size=3))
templates = st.dictionaries(texts | st.sampled_from(["kv", "messages", "prompt", "stream_options"]), nodes, max_size=4)


@st.composite
def levels(draw: st.DrawFn) -> Level:
    fields: dict[str, Any] = {"mode": draw(st.sampled_from(["question_aware", "question_agnostic"]))}
    fields |= draw(st.sampled_from([{}, FULL, {"unit": "tokens", "budget": 250.0}, {"unit": "bits", "budget": 4.0}]))
    found = level(draw(st.none() | templates), **fields)
    found.apply.update(draw(st.sampled_from([{}, {"round_to": 16}, {"round_to": 64, "rounding": "down"}])))
    return found


@given(
    level=levels(),
    template=st.tuples(awkward, awkward, awkward),
    system=st.none() | awkward,
    endpoint=st.sampled_from(["chat", "completions"]),
    extra=st.sampled_from([{}, {"kv": {"a": "\0question\0"}, "messages": []}, {"stream_options": {"b": 1}}]),
    prompts=st.lists(st.tuples(awkward, awkward, lengths, lengths), min_size=1, max_size=3),
    turns=st.lists(st.tuples(awkward, awkward).map(list), max_size=2),
)
def test_a_body_is_byte_for_byte_what_it_would_be_alone(
    level: Level, template: tuple[str, str, str], system: str | None, endpoint: str, extra: Json,
    prompts: list[tuple[str, str, int | None, int | None]], turns: list[list[str]],
) -> None:  # fmt: skip
    before, between, after = (part.replace("{context}", "").replace("{question}", "") for part in template)
    whole = f"{before}{{context}}{between}{{question}}{after}"
    settings = Settings.model_validate({"prompt": {"endpoint": endpoint}, "decoding": {"extra_body": extra}})
    bodies = LevelPayloads(settings, level, whole, system)
    for context, question, prompt_tokens, context_tokens in prompts:
        for earlier in ([], turns):
            messages, chars = render(whole, context, question, earlier, system)
            alone = build_body(settings, messages, level, PromptSize(prompt_tokens, context_tokens, chars))
            made = bodies(context, question, earlier, size=PromptSize(prompt_tokens, context_tokens))
            assert made.body == alone


def test_a_level_leaves_nothing_behind_in_the_settings_it_was_made_from() -> None:
    settings = Settings.model_validate({"decoding": {"extra_body": {"kv": {"a": 1}}}})
    bodies = LevelPayloads(settings, level({"kv": {"policy": "{policy}"}}), "{context} {question}", None)
    assert b'"kv":{"a":1,"policy":"snapkv"}' in bodies("c", "q").body
    assert settings.decoding.extra_body == {"kv": {"a": 1}}


def test_a_value_that_one_prompt_lacks_drops_its_key_there_alone() -> None:
    bodies = LevelPayloads(
        Settings(), level({"kv": {"k": "{keep_tokens}", "c": "{context_chars}"}}), "{context} {question}", None
    )
    assert json.loads(bodies("c", "q", size=PromptSize(1000)).body)["kv"] == {"k": 199, "c": 1}
    assert json.loads(bodies("cc", "q").body)["kv"] == {"c": 2}
    assert json.loads(bodies("ccc", "q", size=PromptSize(500)).body)["kv"] == {"k": 99, "c": 3}
