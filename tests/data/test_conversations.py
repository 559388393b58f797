"""Conversations: an example a turn, chosen, binned and cut together."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.conversation import unit_of
from kvt_async.contract.formulas.own_history import said
from kvt_async.contract.formulas.prompt_text import render
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.data.conversations import whole_conversations
from kvt_async.data.manifest import ManifestEntry, ManifestHead, read_items
from kvt_async.data.manifest_store import store_manifest, verify_parity
from kvt_async.data.prepare import Prepared, prepare
from kvt_async.data.sources.jsonl import read
from kvt_async.data.sources.source import Row
from kvt_async.records import Example
from kvt_async.store.reader import Reader
from tests.data.helpers import jsonl_settings, numbered, write_lines

TWO: list[dict[str, Any]] = [
    {"question": "who ?", "answers": ["Ada", "Ada L."]},
    {"question": "when ?", "answers": "noon"},
]
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "who ?"},
    {"role": "assistant", "content": "Ada"},
    {"role": "user", "content": "when ?"},
    {"role": "assistant", "content": "noon"},
]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def rows(tmp_path: Path, *lines: dict[str, Any]) -> list[Row]:
    return list(read(write_lines(tmp_path / "x.jsonl", lines)))


def examples(tmp_path: Path, *lines: dict[str, Any]) -> list[Example]:
    return [row.example for row in rows(tmp_path, *lines)]


def quiet(config: Settings, **options: Any) -> tuple[Prepared, list[str]]:
    said: list[str] = []
    return prepare(config, report=said.append, **options), said


def items(prepared: Prepared) -> list[tuple[ManifestEntry, Example]]:
    return list(read_items(prepared.path))


def talks(n: int, turns: int = 3, context: str = "rain ") -> list[dict[str, Any]]:
    """n conversations of rising length."""
    return [
        {
            "example_id": f"c{i:02d}",
            "context": (context * (3 * (i + 1))).strip(),
            "conversation": [{"question": f"what is {k} ?", "answers": [str(k)]} for k in range(turns)],
        }
        for i in range(n)
    ]


def test_each_turn_is_an_example_that_carries_the_turns_before_it(tmp_path: Path) -> None:
    first, second = rows(tmp_path, {"example_id": "c", "context": "a day", "conversation": TWO, "source": "diary"})
    shared = {"source": "diary", "conversation": "c"}
    assert first.example == Example("c", "who ?", "a day", ("Ada", "Ada L."), {**shared, "turn": 0, "turns": []})
    told = {**shared, "turn": 1, "turns": [["who ?", "Ada"]]}
    assert second.example == Example("c.t1", "when ?", "a day", ("noon",), told)
    assert second.where == f"{tmp_path}/x.jsonl:1, conversation[1]"


def test_the_first_question_stands_in_the_template_with_the_context(tmp_path: Path) -> None:
    _, second = examples(tmp_path, {"context": "a day", "conversation": TWO})
    messages, context_chars = render("{context}\n\n{question}", second.context, second.question, second.meta["turns"])
    assert [m["content"] for m in messages] == ["a day\n\nwho ?", "Ada", "when ?"]
    assert context_chars == len("a day")


def test_messages_say_the_same_as_turns(tmp_path: Path) -> None:
    asked = [{"question": "who ?", "answers": ["Ada"]}, {"question": "when ?", "answers": ["noon"]}]
    assert examples(tmp_path, {"example_id": "c", "conversation": MESSAGES}) == examples(
        tmp_path, {"example_id": "c", "conversation": asked}
    )


def test_without_an_id_the_content_names_the_conversation(tmp_path: Path) -> None:
    one, _, same, _, other, _ = examples(
        tmp_path, {"conversation": TWO}, {"conversation": TWO, "meta": {"n": 1}}, {"conversation": TWO, "context": "x"}
    )
    assert one.example_id == same.example_id == one.meta["conversation"] != other.example_id
    assert len(one.example_id) == 16


def test_a_turn_that_is_not_scored_is_told_and_not_asked(tmp_path: Path) -> None:
    turns = [
        {"question": "read this", "reply": "Done."},
        {"question": "who ?", "answers": ["Ada"], "score": False},
        {"question": "when ?", "answers": ["12", "noon"], "reply": "It was noon."},
        {"question": "where ?", "answers": ["here"]},
        {"question": "thanks", "reply": "Bye."},
    ]
    third, fourth = examples(tmp_path, {"example_id": "c", "conversation": turns})
    assert (third.example_id, third.meta["turn"], fourth.example_id) == ("c.t2", 2, "c.t3")
    assert third.meta["turns"] == [["read this", "Done."], ["who ?", "Ada"]]
    assert fourth.meta["turns"][2] == ["when ?", "It was noon."]
    assert not {"reply", "score"} & third.meta.keys()
    unscored = [{**MESSAGES[0]}, {**MESSAGES[1], "score": False}, *MESSAGES[2:]]
    (only,) = examples(tmp_path, {"conversation": unscored})
    assert (only.question, only.meta["turns"]) == ("when ?", [["who ?", "Ada"]])


def test_a_turns_own_fields_lie_over_those_of_the_row(tmp_path: Path) -> None:
    call = {"name": "weather", "arguments": {}}
    turns = [{"question": "rain ?", "expected_calls": [call]}, {"question": "thanks", "answers": ["."], "tools": []}]
    first, second = examples(
        tmp_path, {"conversation": turns, "tools": [TOOL], "meta": {"level": 1}, "example_id": "c"}
    )
    assert first.answers == ('{"name":"weather","arguments":{}}',)
    assert (first.meta["tools"], second.meta["tools"]) == ([TOOL], [])
    told = said("", None, '[{"name": "weather", "arguments": "{}"}]', None, opened=False)
    assert second.meta["turns"] == [["rain ?", told]] == [["rain ?", '[{"name": "weather", "arguments": {}}]']]
    assert second.meta["level"] == 1


@pytest.mark.parametrize(
    ("row", "place", "says"),
    [
        ({"conversation": {}}, "", "the field 'conversation' must be a list, not an object"),
        ({"conversation": "hello"}, "", "the field 'conversation' must be a list, not a string"),
        ({"conversation": []}, "", "the conversation is empty"),
        ({"conversation": TWO, "question": "q"}, "", "the row has a conversation and 'question'"),
        ({"conversation": TWO, "answers": ["a"]}, "", "the row has a conversation and 'answers'"),
        ({"conversation": TWO, "context": None}, "", "the field 'context' must be a string, not null"),
        ({"conversation": TWO, "turns": []}, "", "the field 'turns' is made from the conversation"),
        ({"conversation": TWO, "meta": {"turn": 1}}, "", "the field 'turn' is made from the conversation"),
        ({"conversation": TWO, "meta": []}, "", "the field 'meta' must be an object, not a list"),
        ({"conversation": TWO, "example_id": " "}, "", "the field 'example_id' must be a non-empty string"),
        ({"conversation": [TWO[0], "when ?"]}, "[1]", "a turn is an object"),
        ({"conversation": [TWO[0], MESSAGES[0]]}, "[1]", "turns and messages are mixed"),
        ({"conversation": [TWO[0], {"answers": []}]}, "[1]", "the field 'question' is missing"),
        ({"conversation": [TWO[0], {"question": 1, "answers": []}]}, "[1]", "'question' must be a string"),
        ({"conversation": [TWO[0], {"question": "q"}]}, "[1]", "the field 'answers' is missing"),
        ({"conversation": [{"question": "q", "answers": [1]}]}, "[0]", r"the field 'answers\[0\]' must be a string"),
        ({"conversation": [{**TWO[0], "score": 0}]}, "[0]", "the field 'score' must be true or false, not a number"),
        ({"conversation": [{**TWO[0], "context": "x"}]}, "[0]", "a turn has no 'context' of its own"),
        ({"conversation": [{**TWO[0], "metric": "em"}]}, "[0]", "a turn has no 'metric' of its own"),
        ({"conversation": [{**TWO[0], "reply": None}]}, "[0]", "the field 'reply' must be a string, not null"),
        ({"conversation": [{"question": "q", "answers": []}, TWO[1]]}, "[0]", "nothing is known that this turn"),
        ({"conversation": [{"question": "q", "reply": "r"}]}, "", "no turn of this conversation is scored"),
        ({"conversation": [{"role": "system", "content": "be brief"}, *MESSAGES]}, "[0]", "no message of the system"),
        ({"conversation": [*MESSAGES[:2], {"role": "tool", "content": "3"}]}, "[2]", "results of tools can't be"),
        ({"conversation": MESSAGES[1:]}, "[0]", "the role must be 'user' here, not 'assistant'"),
        ({"conversation": [MESSAGES[0], MESSAGES[2]]}, "[1]", "the role must be 'assistant' here, not 'user'"),
        ({"conversation": MESSAGES[:3]}, "[2]", "this message has no answer behind it"),
        ({"conversation": [MESSAGES[0], {"role": "assistant"}]}, "[1]", "the field 'content' is missing"),
        ({"conversation": [MESSAGES[0], {**MESSAGES[1], "content": []}]}, "[1]", "'content' must be a string"),
        ({"conversation": [MESSAGES[0], {**MESSAGES[1], "tool_calls": [{}]}]}, "[1]", "calls of tools are no text"),
        ({"conversation": TWO, "tools": "x"}, "[0]", "the field 'tools' must be a list"),
    ],
)  # fmt: skip
def test_a_bad_shape_is_named_with_line_turn_and_field(
    tmp_path: Path, row: dict[str, Any], place: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        rows(tmp_path, {"conversation": TWO}, row)
    assert caught.value.where == f"{tmp_path}/x.jsonl:2" + (f", conversation{place}" if place else "")
    assert caught.value.do


def test_a_row_that_asks_by_itself_may_note_a_conversation(tmp_path: Path) -> None:
    (example,) = examples(tmp_path, {"question": "q", "context": "c", "answers": ["a"], "conversation": "of Monday"})
    assert example.meta == {"conversation": "of Monday"}


def test_all_turns_lie_in_the_bin_of_their_longest_prompt_and_behind_one_another(tmp_path: Path) -> None:
    prepared, said = quiet(jsonl_settings(tmp_path, talks(6), "binning.n_bins=3", "binning.n_per_bin=1"))
    entries = items(prepared)
    assert [entry.example_id for entry, _ in entries] == [
        f"{c}{t}" for c in ("c00", "c02", "c04") for t in ("", ".t1", ".t2")
    ]
    assert [entry.bin_idx for entry, _ in entries] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    lengths = [entry.token_len for entry, _ in entries[:3]]
    asked = len(["<user>", "what", "is", "0", "?", "<assistant>", "0", "<eos>"])  # a turn more, and its answer
    assert lengths == [lengths[0], lengths[0] + asked, lengths[0] + 2 * asked]
    longest = {row["bin_idx"]: (row["lo_tokens"], row["hi_tokens"]) for row in prepared.head.bins}
    assert all(low <= entries[3 * b + 2][0].token_len <= high for b, (low, high) in longest.items())
    assert len({entry.context_sha256 for entry, _ in entries}) == 3
    assert (
        prepared.head.bins[0] | {"n": 3, "n_available": 6, "conversations": 1, "conversations_available": 2}
        == (prepared.head.bins[0])
    )
    assert any("9 entries (3 conversations) of 18 examples in 3 bins" in line for line in said)
    assert any("1 of 2 conversations, 3 of 6 turns" in line for line in said)


def test_bins_share_out_conversations_not_turns(tmp_path: Path) -> None:
    short, long = talks(4, turns=1), talks(4, turns=9)
    for n, row in enumerate(long):
        row |= {"example_id": f"long{n}", "context": f"{row['context']} snow"}
    prepared, _ = quiet(jsonl_settings(tmp_path, [*short, *long], "binning.n_bins=2", "binning.n_per_bin=9"))
    assert [row["conversations"] for row in prepared.head.bins] == [4, 4]
    assert [row["n"] for row in prepared.head.bins] == [4, 36]


@pytest.mark.parametrize("strategy", ["shortest", "uniform", "focus_transition"])
def test_whole_conversations_are_chosen_beside_plain_rows(tmp_path: Path, strategy: str) -> None:
    mixed = [row for pair in zip(talks(8), numbered(8), strict=True) for row in pair]
    options = (f"sampling.strategy={strategy}", "binning.n_bins=2", "binning.n_per_bin=6")
    prepared, _ = quiet(jsonl_settings(tmp_path, mixed, *options))
    assert [row["conversations"] for row in prepared.head.bins] == [6, 6]
    assert_whole(prepared.head, items(prepared))


def assert_whole(head: ManifestHead, entries: Iterable[tuple[ManifestEntry, Example]]) -> None:
    """Of each conversation all three turns, in order, behind one another and in one bin."""
    turns: list[tuple[str, int, int]] = []
    for entry, example in entries:
        if "conversation" in example.meta:
            turns.append((example.meta["conversation"], example.meta["turn"], entry.bin_idx))
    assert turns
    for at in range(0, len(turns), 3):
        name, _, bin_idx = turns[at]
        assert turns[at : at + 3] == [(name, k, bin_idx) for k in range(3)]


def test_a_manifest_grows_by_whole_conversations(tmp_path: Path) -> None:
    options = ("sampling.strategy=focus_transition", "binning.n_bins=1", "binning.n_per_bin=2")
    config = jsonl_settings(tmp_path, talks(6), *options)
    first, _ = quiet(config)
    before = items(first)
    grown, _ = quiet(config, grow=lambda head: {0: 3})
    after = items(grown)
    assert after[: len(before)] == before
    assert (len(before), len(after), grown.head.n_entries) == (6, 15, 15)
    assert (grown.head.bins[0]["n"], grown.head.bins[0]["conversations"]) == (15, 5)
    assert_whole(grown.head, after)
    whole, _ = quiet(jsonl_settings(tmp_path / "at once", talks(6), options[0], options[1], "binning.n_per_bin=5"))
    assert [e.example_id for e, _ in items(whole)] == [e.example_id for e, _ in after]


def test_one_cut_of_the_context_serves_all_turns(tmp_path: Path) -> None:
    row = {**talks(1)[0], "context": " ".join(f"w{n}" for n in range(400))}
    options = ("prompt.max_context_tokens=301", "tokenizer.name=approx:chars/4", "binning.n_bins=1")
    prepared, _ = quiet(jsonl_settings(tmp_path, [row], *options))
    entries = items(prepared)
    (context,) = {example.context for _, example in entries}
    assert len(context) < len(row["context"])
    assert row["context"].startswith(context[:500])
    assert [entry.prompt_truncated for entry, _ in entries] == [1, 1, 1]
    assert entries[2][0].token_len == 300  # the last turn fills the limit; each before is shorter by what it lacks
    assert entries[0][0].token_len < entries[1][0].token_len < 300
    assert len({entry.context_sha256 for entry, _ in entries}) == 1


def test_a_last_turn_that_fits_leaves_every_turn_whole(tmp_path: Path) -> None:
    options = ("prompt.max_context_tokens=301", "tokenizer.name=approx:chars/4", "binning.n_bins=1")
    prepared, _ = quiet(jsonl_settings(tmp_path, talks(1), *options))
    assert [entry.prompt_truncated for entry, _ in items(prepared)] == [0, 0, 0]


def test_no_context_makes_a_cluster_of_a_conversation(tmp_path: Path) -> None:
    chats = [{"example_id": name, "conversation": TWO} for name in ("a", "b")]
    prepared, _ = quiet(jsonl_settings(tmp_path, chats, "binning.n_bins=1"))
    clusters = [entry.context_sha256 for entry, _ in items(prepared)]
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"example_id": "c", "conversation": TWO}] * 2, "turn 0 of conversation 'c' comes after turn 1"),
        ([talks(1)[0], talks(2)[1], talks(1)[0]], "the conversation 'c00' was already used at .*:1, conversation"),
        (
            [{"example_id": "c", "conversation": TWO}, {**numbered(1)[0], "example_id": "c.t1"}],
            "the example_id 'c.t1' was already used at .*:1, conversation",
        ),
        (
            [{"example_id": "e000", "conversation": [{"question": "q", "reply": "r"}, TWO[0]]}, numbered(1)[0]],
            "the conversation 'e000' was already used at .*:1, conversation",
        ),
    ],
)
def test_two_conversations_of_one_name_are_refused(tmp_path: Path, lines: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        quiet(jsonl_settings(tmp_path, lines))


def test_a_gold_that_can_not_be_matched_is_named_with_its_turn(tmp_path: Path) -> None:
    turns = [TWO[0], {"question": "which ?", "answers": [""]}]
    with pytest.raises(ConfigError) as caught:
        quiet(jsonl_settings(tmp_path, [{"example_id": "c", "conversation": turns}]))
    assert "x.jsonl" not in caught.value.what
    assert caught.value.details[0].startswith(f"{tmp_path}/in.jsonl:1, conversation[1] (c.t1)")


def turn(name: str, k: int, context: str = "") -> Row:
    return Row(Example(f"{name}{k}", "q", context, (), {"conversation": name, "turn": k}), f"here:{k}")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3)), max_size=5))
def test_rows_pass_in_their_order_each_with_the_last_turn_of_its_conversation(shape: list[tuple[str, int]]) -> None:
    names = [f"{name}{n}" for n, (name, _) in enumerate(shape)]
    given = [turn(name, k) for name, (_, n) in zip(names, shape, strict=True) for k in range(n)]
    passed = list(whole_conversations(given))
    assert [row.example for row in passed] == [row.example for row in given]
    for row in passed:
        own = [each.example for each in given if each.example.meta["conversation"] == row.example.meta["conversation"]]
        assert row.last_turn is own[-1]


def test_turns_of_different_contexts_are_no_conversation() -> None:
    with pytest.raises(ConfigError, match="have different contexts"):
        list(whole_conversations([turn("a", 0, "x"), turn("a", 1, "y")]))


def test_limit_takes_whole_conversations(tmp_path: Path) -> None:
    db, mixed = tmp_path / "kv.sqlite", [*talks(6), *numbered(4, words=2)]
    options = ("binning.n_bins=2", "binning.n_per_bin=9", "sampling.strategy=uniform")
    prepared, _ = quiet(jsonl_settings(tmp_path, mixed, *options))
    with closing(connect_for_writing(db)) as conn:
        store_manifest(conn, prepared.path, dataset_id=prepared.dataset_id)
        assert verify_parity(conn, prepared.path) == []
    order = [(entry.bin_idx, unit_of(example.example_id, example.meta)) for entry, example in items(prepared)]
    units = [list(dict.fromkeys(unit for at, unit in order if at == b)) for b in (0, 1)]
    wanted = {*units[0][:2], *units[1][:2]}
    with closing(Reader(db)) as reader:
        first = reader.first_of_each_bin(prepared.dataset_id, 2)
    assert first == [seq for seq, (_, unit) in enumerate(order) if unit in wanted]
