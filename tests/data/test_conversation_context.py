"""A context that is a conversation: its messages go out as they are, and what can't say where they end is refused."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import context_parts, render
from kvt_async.contract.settings import Settings
from kvt_async.data.count import count_batch
from kvt_async.data.example_prompt import PromptRule
from kvt_async.data.sources.source import Row
from kvt_async.data.tokens import ApproxTokenizer, load_tokenizer
from kvt_async.engine.request.encoded_bodies import LevelPayloads
from kvt_async.records import Example
from kvt_async.ways.levels import make_levels
from kvt_async.ways.truncate import Cutter
from tests.data.helpers import settings
from tests.engine.test_chat_body import level
from tests.worlds import settings_of

MESSAGES = [
    {"role": "user", "content": "Examples first."},
    {"role": "user", "content": "write a poem"},
    {"role": "assistant", "content": "Roses are red, and so on for a while."},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "Nothing was asked."},
]
BODY = {"kv": {"mode": "{mode}", "context_chars": "{context_chars}"}}


def conversation(*messages: dict[str, str], **meta: Any) -> Example:
    parts = [[message["role"], len(message["content"])] for message in messages]
    context = "".join(message["content"] for message in messages)
    return Example("e", "which ?", context, ("a",), {"context_messages": parts, **meta})


def rule(template: str = "{context}{question}", endpoint: str = "chat", limit: int | None = None) -> PromptRule:
    return PromptRule(template, None, endpoint, limit, "v", None)


def test_the_messages_of_the_context_are_followed_by_the_question() -> None:
    asked = {"role": "user", "content": "which ?"}
    assert rule().messages(conversation(*MESSAGES)) == [*MESSAGES, asked]
    earlier = conversation(*MESSAGES, turns=[["q", "a"]])
    assert rule().messages(earlier)[5:] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        asked,
    ]


@pytest.mark.parametrize("note", [None, "user", [["user", 3]], [["user", "4"]], [["user", 5], ["user", -1]], [[4]]])
def test_what_does_not_divide_the_context_says_nothing(note: Any) -> None:
    assert context_parts({"context_messages": note}, "text") == []
    assert context_parts({"context_messages": [["user", 4]]}, "text") == [("user", 4)]


def test_lengths_are_of_what_is_sent_and_of_the_haystack_with_the_templates_marks(tmp_path: Path) -> None:
    (counted,) = count_batch([Row(conversation(*MESSAGES), "f:1")], rule(), ApproxTokenizer())
    plain = "\n\n".join(message["content"] for message in [*MESSAGES, {"content": "which ?"}])
    assert (counted.token_len, counted.context_tokens) == (-(-len(plain) // 4), -(-len(plain) // 4) - 2)
    words = [{"role": role, "content": "look look"} for role in ("user", "user", "assistant")]
    reference = load_tokenizer(settings(tmp_path))
    (counted,) = count_batch([Row(conversation(*words), "f:1")], rule(), reference)
    rest = counted.token_len - counted.context_tokens
    (alone,) = count_batch([Row(Example("e", "which ?", "", ("a",)), "f:1")], rule("{context}{question}"), reference)
    assert counted.context_tokens == 3 * (1 + 2) + 1  # a role and two words each, and the mark that ends an answer
    assert rest == alone.token_len


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (rule(endpoint="completions"), "only chat requests"),
        (rule("Read: {context} {question}"), "no template is used"),
        (rule(limit=10), "conversations are not cut"),
    ],
)
def test_what_would_change_the_published_messages_is_refused(asked: PromptRule, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        count_batch([Row(conversation(*MESSAGES), "f:1")], asked, ApproxTokenizer())
    assert "f:1" in str(refused.value.where)


def test_a_level_that_compresses_the_context_says_how_many_messages_it_has() -> None:
    example, mode = conversation(*MESSAGES), {"mode": "question_agnostic"}
    parts = context_parts(example.meta, example.context)

    def sent(body: dict[str, Any], **fields: Any) -> dict[str, Any]:
        payloads = LevelPayloads(Settings(), level(body, **fields), "{context}{question}", "Be brief.")
        found: dict[str, Any] = json.loads(payloads(example.context, example.question, parts=parts).body)
        return found

    with pytest.raises(ConfigError, match="is a conversation"):
        sent(BODY, **mode)
    body = sent({"kv": BODY["kv"] | {"context_messages": "{context_messages}"}}, **mode)
    assert body["kv"] == {"mode": "question_agnostic", "context_messages": 6}  # with the system text
    assert len(body["messages"]) == 7
    assert sent(BODY)["kv"] == {"mode": "question_aware"}  # nothing to say: the whole prompt is compressed


@given(
    texts=st.lists(st.text("ab cd.", max_size=60), min_size=1, max_size=8),
    budget=st.floats(0.01, 0.99),
    mode=st.sampled_from(["middle", "left"]),
)
def test_a_cut_conversation_keeps_its_ends_and_its_roles_go_on_taking_turns(
    texts: list[str], budget: float, mode: str
) -> None:
    roles = ["user", "assistant"] * len(texts)
    example = conversation(*({"role": role, "content": text} for role, text in zip(roles, texts, strict=False)))
    asked = settings_of(f"kv.policies=[{{policy: truncate_prompt, params: {{mode: {mode}}}}}]", "kv.budgets=[1.0,0.5]")
    at = next(found for found in make_levels(asked).levels if found.cuts_prompts)
    cutter, (counted,) = (
        Cutter(rule(), ApproxTokenizer()),
        count_batch([Row(example, "f:1")], rule(), ApproxTokenizer()),
    )
    cut = cutter.cut(example, counted.token_len, level(policy="truncate_prompt", budget=budget, params=at.params))
    *kept, question = cut.messages
    assert question == {"role": "user", "content": "which ?"}
    whole, left = "".join(texts), "".join(message["content"] for message in kept)
    head = next(n for n in range(len(left), -1, -1) if whole.startswith(left[:n]))
    assert whole.endswith(left[head:])  # nothing but one gap
    assert all(a["role"] != b["role"] for a, b in pairwise(kept))
    assert (cut.context_chars, cut.context_messages) == (None, len(kept))


def test_a_prompt_template_stands_around_a_context_of_one_text_as_ever() -> None:
    messages, chars = render("<{context}> {question}", "ab", "?", (), None, ())
    assert (messages, chars) == ([{"role": "user", "content": "<ab> ?"}], 3)
