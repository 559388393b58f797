"""Conversations as a workload: which there are, how long, what their prompts hold; made and from files."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.bench.conversations import think_times
from kvt_async.bench.conversations.conversation_plan import ConversationPlan
from kvt_async.bench.conversations.conversation_workload import ConversationWorkload
from kvt_async.bench.workload import Place, WorkloadPrompt, load_workload
from kvt_async.contract.conversation_settings import ThinkTimes
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import plain
from kvt_async.data.tokens import load_tokenizer
from tests.worlds import settings_of

MADE = (
    "bench.workload={kind: conversations, turns: {kind: uniform, low: 1, high: 5}, input_tokens: {kind: uniform, low: "
    "5, high: 40}, output_tokens: {kind: uniform, low: 3, high: 20}, system_tokens: 30, shared_system: 0.5, think_s: "
    "{kind: lognormal, value: 2, std: 1}}"
)


def workload(*overrides: str, tokenizer: str = "reference") -> ConversationWorkload:
    made = load_workload(settings_of(f"tokenizer.name={tokenizer}", *overrides))
    assert isinstance(made, ConversationWorkload)
    return made


def from_file(folder: Path, *rows: Any, more: tuple[str, ...] = ()) -> ConversationWorkload:
    file = folder / "talks.jsonl"
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    salted = () if any("salt" in text for text in more) else ("bench.salt=false",)
    return workload("bench.workload.kind=conversations", f"bench.workload.path={file}", *salted, *more)


def texts(prompt: WorkloadPrompt) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in prompt.messages]


def numbers(prompts: list[WorkloadPrompt]) -> list[tuple[int | None, ...]]:
    return [(p.details.conversation_idx, p.details.turn_idx, p.details.think_ns, p.output_tokens) for p in prompts]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=30), st.data())
def test_every_place_is_one_turn_of_one_conversation_in_order(turns: list[int], data: st.DataObject) -> None:
    plan = ConversationPlan(lambda conversation: turns[conversation % len(turns)])
    every = [(c, t) for c in range(2 * len(turns)) for t in range(turns[c % len(turns)])]
    place = data.draw(st.integers(0, len(every) - 1))
    assert tuple(plan.turn_of(place)) == every[place]
    assert [tuple(plan.turn_of(n)) for n in range(len(every))] == every
    conversation = data.draw(st.integers(0, len(turns) - 1))
    start, n = plan.first(conversation), data.draw(st.integers(1, 20))
    whole = plan.whole(n, start)
    assert whole >= n
    assert plan.turn_of(start + whole).turn == 0
    assert plan.turn_of(start + whole - 1).conversation == 0 or whole - plan.turns(
        plan.turn_of(start + whole - 1).conversation
    ) < n  # fmt: skip


@pytest.mark.parametrize("tokenizer", ["reference", "approx:chars/4"])
def test_a_seed_makes_the_same_conversations_with_exact_lengths_and_their_history(tokenizer: str) -> None:
    work, again = (workload(MADE, tokenizer=tokenizer) for _ in range(2))
    places = [Place(seq, "salt") for seq in range(60)]
    prompts = work.prompts(places)
    assert prompts == again.prompts(places)
    assert prompts[20:30] == again.prompts(places[20:30])  # whatever else is asked for
    assert numbers(work.prompts([Place(seq, "other") for seq in range(60)])) == numbers(prompts)
    assert numbers(work.prompts([Place(seq, "salt", 1) for seq in range(60)])) != numbers(prompts)
    counted = load_tokenizer(settings_of(f"tokenizer.name={tokenizer}"))
    for earlier, later in pairwise(prompts):
        if later.details.turn_idx:
            assert later.messages[:-2] == earlier.messages
            reply, user = later.messages[-2:]
            assert (reply["role"], user["role"]) == ("assistant", "user")
            assert counted.count([reply["content"]], special=False) == [earlier.output_tokens]
            assert later.details.shared_tokens in (earlier.input_tokens, earlier.input_tokens - 1)
        else:
            assert [role for role, _ in texts(later)] == ["system", "user"]
            assert later.details.think_ns is None
        assert 5 <= counted.count([later.messages[-1]["content"]], special=False)[0] <= 40
        rendered = counted.chat.render(later.messages) if counted.chat else plain(later.messages)
        assert later.input_tokens == counted.count([rendered], special=counted.chat is None)[0]


def test_conversations_begin_alike_only_as_asked() -> None:
    first = [prompt for prompt in workload(MADE).prompts([Place(seq, "s") for seq in range(200)])
             if prompt.details.turn_idx == 0]  # fmt: skip
    systems = [prompt.messages[0]["content"] for prompt in first]
    shared = [text for prompt, text in zip(first, systems, strict=True) if prompt.group_idx == 0]
    assert len(set(shared)) == 1
    assert abs(len(shared) - len(first) / 2) <= 1
    assert len(set(systems)) == 1 + len(systems) - len(shared)
    assert len({prompt.messages[1]["content"] for prompt in first}) == len(first)
    assert {prompt.details.shared_tokens for prompt in first if prompt.group_idx is None} == {0}
    assert min(prompt.details.shared_tokens or 0 for prompt in first[2:] if prompt.group_idx == 0) >= 30


def test_own_replies_take_the_place_of_recorded_ones_as_far_as_they_are_there() -> None:
    work = workload(MADE, "bench.workload.history=own", "bench.workload.turns={value: 3}")
    place = Place(2, "salt")
    (recorded,), (own,) = work.prompts([place]), work.prompts([place], {0: ["mine", "too"]})
    assert [text for role, text in texts(own) if role == "assistant"] == ["mine", "too"]
    assert [each for each in texts(own) if each[0] != "assistant"] == [
        each for each in texts(recorded) if each[0] != "assistant"
    ]
    before, said = own.input_tokens, work.tokenizer.count(["too"], special=False)[0]
    (earlier,) = work.prompts([Place(1, "salt")], {0: ["mine"]})
    assert own.details.shared_tokens is not None
    assert earlier.input_tokens < own.details.shared_tokens <= earlier.input_tokens + said < before


SHAREGPT = {
    "conversations": [
        {"from": "gpt", "value": "Welcome"}, {"from": "human", "value": "Hi"}, {"from": "human", "value": "there"},
        {"from": "gpt", "value": "x" * 40}, {"from": "human", "value": "And?"},
    ]
}  # fmt: skip
OPENAI = {
    "messages": [
        {"role": "system", "content": "Be brief"}, {"role": "user", "content": [{"type": "text", "text": "Q"}]},
        {"role": "assistant", "content": "A"}, {"role": "user", "content": "Q2"},
        {"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "tool", "content": "42"},
        {"role": "user", "content": "Q3"},
    ],
    "max_tokens": 9,
}  # fmt: skip
OWN = {"system": "S", "turns": [{"prompt": "P", "reply": "R"}, {"prompt": "P2", "output_tokens": 5, "think_s": 1.5}]}


def test_files_are_read_with_all_turns_and_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    nobody = {"conversations": [{"from": "gpt", "value": "I begin"}]}
    work = from_file(tmp_path, SHAREGPT, OPENAI, OWN, nobody, more=("bench.workload.output_tokens=null",))
    prompts = work.prompts([Place(seq, None) for seq in range(7)])
    assert [texts(prompt) for prompt in prompts] == [
        [("user", "Hi\n\nthere")],
        [("user", "Hi\n\nthere"), ("assistant", "x" * 40), ("user", "And?")],
        [("system", "Be brief"), ("user", "Q")],
        [("system", "Be brief"), ("user", "Q"), ("assistant", "A"), ("user", "Q2")],
        [("system", "S"), ("user", "P")],
        [("system", "S"), ("user", "P"), ("assistant", "R"), ("user", "P2")],
        [("user", "Hi\n\nthere")],
    ]
    assert [prompt.details.think_ns for prompt in prompts[4:6]] == [None, 1_500_000_000]
    assert [prompt.details.source_line for prompt in prompts] == [1, 1, 2, 2, 3, 3, 1]
    assert [prompt.output_tokens for prompt in prompts[2:6]] == [9, 9, 1, 5]
    assert prompts[1].output_tokens == 256  # no reply says how long: decoding.max_tokens
    assert (work.size, work.describe()["conversations"]) == (6, 3)
    said = "\n".join(work.notes)
    for words in ("1 conversations have nothing that a user says", "begin with the assistant", "one after the other",
                  "no text of a user or an assistant"):  # fmt: skip
        assert words in said


AIPERF = [
    {"session_id": "a", "input_length": 30, "output_length": 4},
    {"session_id": "b", "input_length": 20, "output_length": 5, "timestamp": 100},
    {"session_id": "a", "input_length": 12, "output_length": 6, "delay": 2000},
    {"session_id": "b", "input_length": 10, "output_length": 7, "timestamp": 1600},
]
BAILIAN = [
    {"chat_id": 1, "parent_chat_id": -1, "timestamp": 1.0, "input_length": 30, "output_length": 4, "turn": 1},
    {"chat_id": 2, "parent_chat_id": -1, "timestamp": 1.5, "input_length": 20, "output_length": 5, "turn": 1},
    {"chat_id": 3, "parent_chat_id": 1, "timestamp": 3.0, "input_length": 46, "output_length": 6, "turn": 2},
    {"chat_id": 4, "parent_chat_id": 2, "timestamp": 3.0, "input_length": 35, "output_length": 7, "turn": 2},
    {"chat_id": 5, "parent_chat_id": 9, "timestamp": 4.0, "input_length": 50, "output_length": 8, "turn": 3},
]


@pytest.mark.parametrize("rows", [AIPERF, BAILIAN])
def test_sessions_of_a_trace_are_conversations_of_its_lengths(tmp_path: Path, rows: list[Any]) -> None:
    work = from_file(tmp_path, *rows, more=("bench.workload.output_tokens=null", "bench.salt=true"))
    prompts = work.prompts([Place(seq, "s") for seq in range(4)])
    lengths = [work.tokenizer.count([m["content"] for m in p.messages], special=False) for p in prompts]
    assert lengths == [[30], [30, 4, 12], [20], [20, 5, 10]]
    assert [(p.output_tokens, p.details.think_ns) for p in prompts] == [
        (4, None), (6, 2_000_000_000), (5, None), (7, 1_500_000_000)
    ]  # fmt: skip
    assert prompts[1].messages[0] == prompts[0].messages[0]
    assert ("go on from a chat that is not there" in "".join(work.notes)) == (rows is BAILIAN)


def test_a_salted_file_says_the_same_behind_a_beginning_of_its_own(tmp_path: Path) -> None:
    work = from_file(tmp_path, OWN, more=("bench.salt=true",))
    one, other = work.prompts([Place(1, "a"), Place(3, "a")])
    assert one.messages[1]["content"] != other.messages[1]["content"]
    assert all(prompt.messages[1]["content"].endswith("\n\nP") for prompt in (one, other))
    assert one.messages[-1] == other.messages[-1] == {"role": "user", "content": "P2"}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": "x"}, "no conversation is found"),
        ([1], "no conversation is found"),
        ({"turns": [{"reply": "R"}]}, "this turn has no prompt"),
        ({"turns": [{"prompt": "P"}, {"prompt": "P2"}]}, "no reply, and another follows"),
        ({"turns": [{"prompt": "P", "think_s": -1}]}, "think_s is -1"),
        ({"turns": []}, "has no turns"),
        ({"messages": [{"role": "assistant", "content": "A"}]}, "has no conversations"),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_line(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        from_file(tmp_path, row)
    assert "talks.jsonl" in caught.value.where


@pytest.mark.parametrize(
    ("workload", "says"),
    [
        ("{turns: {value: 3}}", "turns belongs to kind: conversations"),
        ("{kind: jsonl, path: a.jsonl, think_s: 2}", "think_s belongs to kind: conversations"),
        ("{kind: conversations, path: a.jsonl, turns: {value: 3}}", "turns is of made conversations"),
        ("{kind: conversations, shared_system: 0.5}", "shared_system needs system_tokens"),
        ("{kind: conversations, prefix: {groups: 2, tokens: 5}}", "begin alike with system_tokens"),
        ("{kind: conversations, output_tokens: null}", "needs output_tokens"),
        ("{kind: conversations, turns: {value: 10001}}", "at most 10,000"),
        ("{kind: conversations, think_s: {kind: uniform}}", "uniform needs low and high"),
        ("{kind: conversations, think_s: {kind: exponential}}", "exponential needs a value"),
        ("{kind: conversations, think_s: {kind: list}}", "a list needs values"),
        ("{kind: conversations, think_s: -1}", "greater than or equal to 0"),
        ("{kind: conversations, history: golden}", "'recorded' or 'own'"),
    ],
)  # fmt: skip
def test_a_config_that_says_no_conversation_is_refused_in_words(workload: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(f"bench.workload={workload}")
    assert says in str(caught.value)


def test_keys_of_conversations_change_no_other_workload() -> None:
    described = load_workload(settings_of("tokenizer.name=reference")).describe()
    assert set(described) == {
        "kind", "input_tokens", "output_tokens", "prefix", "salted", "tokenizer", "tokenizer_sha256"
    }  # fmt: skip


def test_think_times_follow_their_distribution_within_their_bounds() -> None:
    def drawn(**fields: object) -> list[float]:
        times = ThinkTimes.model_validate(fields)
        return [think_times.draw_ns(times, (1, n)) / 1e9 for n in range(1000)]

    assert set(drawn(value=2)) == {2.0}
    exponential = drawn(kind="exponential", value=2, high=6)
    assert 1.5 < sum(exponential) / 1000 < 2.0  # the tail is drawn again
    assert max(exponential) <= 6
    lognormal = drawn(kind="lognormal", value=2, std=1)
    assert sum(lognormal) / 1000 == pytest.approx(2, rel=0.1)
    assert 3 <= min(drawn(kind="uniform", low=3, high=4)) <= max(drawn(kind="uniform", low=3, high=4)) <= 4
    assert set(drawn(kind="list", values=[0, 1.5])) == {0.0, 1.5}


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("2", {"kind": "fixed", "value": 2}),
        ("[1, 2]", {"kind": "list", "values": [1, 2]}),
        ("{low: 1, high: 3}", {"kind": "uniform", "low": 1, "high": 3}),
        ("{mean: 5}", {"kind": "exponential", "value": 5}),
        ("{mean: 5, std: 2}", {"kind": "lognormal", "value": 5, "std": 2}),
    ],
)
def test_think_times_have_short_forms(short: str, long: dict[str, Any]) -> None:
    settings = settings_of(f"bench.workload={{kind: conversations, think_s: {short}, turns: [1, 3]}}")
    assert settings.bench.workload.think_s == ThinkTimes.model_validate(long)
    assert settings.bench.workload.turns.values == [1, 3]
