"""prepare: the same manifest from the same inputs, refused when they differ, and nothing lost by --force."""

import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from tokenizers import Tokenizer

from kvt_async.contract.errors import ConfigError, ContractMismatchError, GuardError
from kvt_async.contract.formulas.prompt_text import messages_sha256, render
from kvt_async.contract.settings import Settings
from kvt_async.data.contract_of import group_contract, task_contract
from kvt_async.data.identity import dataset_id
from kvt_async.data.manifest import ManifestHead, read_head, read_items
from kvt_async.data.prepare import Prepared, prepare
from kvt_async.data.tokens import load_tokenizer
from tests.data.helpers import jsonl_settings, longbench_row, longbench_zip, numbered, settings, write_lines


def quiet(config: Settings, **options: Any) -> tuple[Prepared, list[str]]:
    said: list[str] = []
    return prepare(config, report=said.append, **options), said


def test_the_manifest_is_complete_and_ordinary_json(tmp_path: Path) -> None:
    prepared, _ = quiet(jsonl_settings(tmp_path, numbered(30), "binning.n_per_bin=3"))
    manifest = orjson.loads(prepared.path.read_bytes())
    assert manifest["dataset_id"] == prepared.dataset_id == prepared.path.parent.name
    assert (manifest["name"], manifest["task"], manifest["metric"]) == ("jsonl", "mine", "f1")
    assert (manifest["n_bins"], manifest["n_per_bin"], len(manifest["bin_edges"])) == (5, 3, 6)
    assert manifest["tokenizer_name"] == "reference"
    assert [e["example_id"] for e in manifest["entries"]] == [x["example_id"] for x in manifest["examples"]]
    assert [e["bin_idx"] for e in manifest["entries"]] == [b for b in range(5) for _ in range(3)]
    # bins of six, the three shortest of each
    assert [e["example_id"] for e in manifest["entries"][:6]] == ["e000", "e001", "e002", "e006", "e007", "e008"]
    assert prepared.per_bin == dict.fromkeys(range(5), 3)


def test_the_sha256_is_of_everything_before_its_line(tmp_path: Path) -> None:
    prepared, _ = quiet(jsonl_settings(tmp_path, numbered(5)))
    import hashlib

    lines = prepared.path.read_bytes().splitlines(keepends=True)
    assert orjson.loads(b"{" + lines[-2] + b"}") == {"sha256": hashlib.sha256(b"".join(lines[:-2])).hexdigest()}
    assert read_head(prepared.path) == prepared.head


def test_token_len_is_that_of_the_rendered_prompt_with_its_chat_template(tmp_path: Path) -> None:
    config = jsonl_settings(tmp_path, numbered(3), "prompt.system=you listen")
    prepared, _ = quiet(config)
    for entry, example in read_items(prepared.path):
        words = ["<bos>", "<system>", "you", "listen", "<user>", *example.context.split(), *example.question.split()]
        assert entry.token_len == entry.original_tokens == len([*words, "<assistant>"])
        assert entry.context_tokens == example.meta["context_tokens"] == len(example.context.split())
        messages, _ = render("{context} {question}", example.context, example.question, system="you listen")
        assert entry.prompt_sha256 == messages_sha256(messages)


def test_the_completions_endpoint_is_counted_without_a_chat_template(tmp_path: Path) -> None:
    prepared, _ = quiet(jsonl_settings(tmp_path, numbered(1), "prompt.endpoint=completions"))
    (item,) = read_items(prepared.path)
    assert item[0].token_len == len((item[1].context + " " + item[1].question).split())
    assert prepared.head.prompt["chat_template_sha256"] is None


def thinking(byte_level: Path, folder: Path) -> Path:
    """The small tokenizer with a chat template that opens reasoning unless it is told not to."""
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((byte_level / "tokenizer.json").read_bytes())
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}|{% if not off %}<think>{% endif %}"
    )
    return folder


def test_a_template_that_opens_reasoning_is_known_from_the_manifest_and_is_no_part_of_the_contract(
    tmp_path: Path, byte_level: Path
) -> None:
    name = f"tokenizer.name={thinking(byte_level, tmp_path / 'thinks')}"
    first, _ = quiet(jsonl_settings(tmp_path, numbered(3), name))
    assert first.head.prompt["reasoning_tag"] == "<think>"
    assert "chat_template_kwargs" not in first.head.prompt
    off = "decoding.extra_body={chat_template_kwargs: {'off': true}}"
    again, _ = quiet(jsonl_settings(tmp_path, numbered(3), name, off))  # shares the manifest and is not refused
    assert (again.skipped, again.head) == (True, first.head)
    other, _ = quiet(jsonl_settings(tmp_path / "other", numbered(3), name, off))
    assert "reasoning_tag" not in other.head.prompt
    plain, _ = quiet(jsonl_settings(tmp_path / "plain", numbered(3)))
    assert not {"reasoning_tag", "chat_template_kwargs"} & {*plain.head.prompt}  # as manifests of before


def test_a_prompt_that_ends_in_an_open_mark_opens_reasoning_on_the_completions_endpoint_alone(tmp_path: Path) -> None:
    template = "prompt.template='{context} {question}<think>'"
    completions, _ = quiet(jsonl_settings(tmp_path, numbered(3), template, "prompt.endpoint=completions"))
    assert completions.head.prompt["reasoning_tag"] == "<think>"
    chat, _ = quiet(jsonl_settings(tmp_path, numbered(3), template))
    assert "reasoning_tag" not in chat.head.prompt


def test_a_template_that_fails_on_one_row_names_it(tmp_path: Path, byte_level: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((byte_level / "tokenizer.json").read_bytes())
    (folder / "chat_template.jinja").write_text("{{ 1 // (messages | length - 3) }}{{ messages }}")  # of three messages
    rows = [*numbered(1), {**numbered(2)[1], "meta": {"turns": [["q ?", "a"]]}}]
    with pytest.raises(ConfigError, match="ZeroDivisionError") as caught:
        quiet(jsonl_settings(tmp_path, rows, f"tokenizer.name={folder}"))
    assert caught.value.details == (f"rendering {tmp_path / 'in.jsonl'}:2",)


def test_what_the_chat_template_leaves_out_is_said(tmp_path: Path, byte_level: Path) -> None:
    folder = tmp_path / "drops"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((byte_level / "tokenizer.json").read_bytes())
    _, said = quiet(jsonl_settings(tmp_path / "a", numbered(3), f"tokenizer.name={folder}"))
    assert "has no chat template" in said[0]
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    _, said = quiet(jsonl_settings(tmp_path / "b", numbered(3), f"tokenizer.name={folder}", "prompt.system=hello"))
    assert "leaves prompt.system out" in said[0]


def test_earlier_turns_are_counted(tmp_path: Path) -> None:
    row = {**numbered(1)[0], "meta": {"turns": [["what is 7 ?", "100 101"]]}}
    without, _ = quiet(jsonl_settings(tmp_path, numbered(1)))
    with_turns, _ = quiet(jsonl_settings(tmp_path, [row]), force=True)
    lengths = [next(iter(read_items(p)))[0].token_len for p in (with_turns.kept or Path(), without.path)]
    assert lengths[1] - lengths[0] == len(["<user>", "what", "is", "7", "?", "<assistant>", "100", "101", "<eos>"])


def test_the_same_inputs_give_the_same_bytes_in_any_row_order_too(tmp_path: Path) -> None:
    files = []
    for folder, rows in (("a", numbered(20)), ("b", numbered(20)), ("c", numbered(20)[::-1])):
        os.makedirs(tmp_path / folder)
        path = write_lines(tmp_path / folder / "in.jsonl", rows)
        link = tmp_path / "in.jsonl"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        overrides = ("dataset.name=jsonl", "dataset.task=mine", f"dataset.path={link}", "sampling.strategy=uniform")
        prepared, _ = quiet(settings(tmp_path / folder, *overrides, "binning.n_per_bin=2"))
        files.append(prepared.path.read_bytes())
    assert files[0] == files[1]
    entries = [content.partition(b'"entries"')[2].rpartition(b'"sha256"')[0] for content in files]
    assert entries[0] == entries[2]


def test_a_second_prepare_tokenises_nothing(tmp_path: Path) -> None:
    config = jsonl_settings(tmp_path, numbered(10))
    first, _ = quiet(config)
    before = first.path.stat().st_mtime_ns
    counted: list[int] = []
    second, said = quiet(config, progress=counted.append)
    assert (second.skipped, second.head, counted) == (True, first.head, [])
    assert second.path.stat().st_mtime_ns == before
    assert "already prepared, 10 entries" in said[0]


def test_other_data_or_another_tokenizer_is_refused_field_by_field_and_kept_beside_by_force(tmp_path: Path) -> None:
    first, _ = quiet(jsonl_settings(tmp_path, numbered(10), "tokenizer.name=null", "model.name=reference"))
    old = first.path.read_bytes()
    changed = jsonl_settings(tmp_path, numbered(11), "tokenizer.name=null", "model.name=approx:chars/4")
    assert dataset_id(changed) == first.dataset_id
    with pytest.raises(ContractMismatchError) as caught:
        prepare(changed)
    fields = [line.split()[0] for line in caught.value.details]
    assert fields == ["prompt.chat_template_sha256", "source_revision", "tokenizer_name", "tokenizer_sha256"]
    assert "stored 'reference'   asked 'approx:chars/4'" in caught.value.details[2]
    assert caught.value.exit_code == 3
    assert first.path.read_bytes() == old

    second, _ = quiet(changed, force=True)
    assert second.kept == first.path.with_name(f"manifest.{first.head.sha256[:8]}.json")
    assert second.kept.read_bytes() == old
    assert read_head(second.path).n_source == 11


def test_a_damaged_manifest_is_refused_and_replaced_by_force(tmp_path: Path) -> None:
    config = jsonl_settings(tmp_path, numbered(10))
    path = quiet(config)[0].path
    good = path.read_bytes()
    for bad in (good.replace(b'"token_len":', b'"token_len":1', 1), good[:-400], b"", b"{}", good + b" "):
        path.write_bytes(bad)
        with pytest.raises(GuardError, match="changed or cut short"):
            prepare(config)
    again, _ = quiet(config, force=True)
    assert again.path.read_bytes() == good
    assert again.kept
    assert again.kept.read_bytes() == good + b" "


@pytest.mark.parametrize("strategy", ["shortest", "focus_transition"])
def test_what_a_database_has_is_not_hashed_again_unless_the_manifest_may_grow_from_its_file(
    tmp_path: Path, strategy: str
) -> None:
    config = jsonl_settings(tmp_path, numbered(10), f"sampling.strategy={strategy}")
    first = quiet(config)[0]
    first.path.write_bytes(first.path.read_bytes().replace(b'"token_len":', b'"token_len":1', 1))
    asked: list[str] = []

    def stored(sha256: str) -> bool:
        asked.append(sha256)
        return True

    if strategy == "shortest":
        assert prepare(config, report=lambda _: None, taken=stored).skipped
        assert asked == [first.head.sha256]
    for taken in (lambda _: False, lambda _: strategy != "shortest"):
        with pytest.raises(GuardError, match="changed or cut short"):
            prepare(config, taken=taken)


def test_the_id_carries_a_hash_unless_the_selection_rule_is_the_default(tmp_path: Path) -> None:
    same = settings(tmp_path, "tokenizer.name=null", "model.name=other", "kv.budgets=[1.0]", "limits.concurrency=1")
    assert dataset_id(same) == "longbench__narrativeqa"
    changes = (
        "binning.n_bins=4", "binning.n_per_bin=6", "binning.edges=[1, 2]", "sampling.strategy=uniform",
        "sampling.seed=1", "dataset.path=x.zip", "dataset.params={a: 1}", "dataset.revision=main",
        "prompt.max_context_tokens=100", "prompt.system=hi", "prompt.template='{context}{question}'",
        "prompt.endpoint=completions", "tokenizer.name=gpt2",
    )  # fmt: skip
    ids = {dataset_id(settings(tmp_path, "tokenizer.name=null", change)) for change in changes}
    assert len(ids) == len(changes)
    assert all(name.startswith("longbench__narrativeqa__") and len(name.rpartition("__")[2]) == 8 for name in ids)
    with pytest.raises(ConfigError, match="folder name"):
        dataset_id(settings(tmp_path, "dataset.name=jsonl", "dataset.task=../x"))


def test_examples_of_one_context_share_the_bin_of_its_longest(tmp_path: Path) -> None:
    rows = numbered(9)
    asked_long = {**rows[0], "example_id": "long", "question": "rain " * 60}
    prepared, _ = quiet(jsonl_settings(tmp_path, [*rows, asked_long], "binning.n_bins=3"))
    entries = {entry.example_id: entry for entry, _ in read_items(prepared.path)}
    assert entries["e000"].context_sha256 == entries["long"].context_sha256
    assert entries["e000"].bin_idx == entries["long"].bin_idx == 2
    assert entries["e000"].token_len < prepared.head.bins[2]["lo_tokens"]


def test_overlong_prompts_are_cut_in_the_middle_as_longbench_does_and_marked(tmp_path: Path) -> None:
    rows = [longbench_row(0), longbench_row(1, context=" ".join(f"word{i}" for i in range(200)))]
    path = longbench_zip(tmp_path / "data.zip", {"qasper": rows})
    config = settings(tmp_path, "dataset.task=qasper", f"dataset.path={path}", "prompt.max_context_tokens=301",
                      "tokenizer.name=approx:chars/4", "binning.n_bins=1")  # fmt: skip
    prepared, said = quiet(config)
    (short, _), (cut, example) = sorted(read_items(prepared.path), key=lambda item: item[1].meta["length"])
    assert (short.prompt_truncated, cut.prompt_truncated) == (0, 1)
    template = prepared.head.prompt["template"]
    whole, _ = render(template, rows[1]["context"], rows[1]["input"])
    sent, _ = render(template, example.context, example.question)
    text = whole[0]["content"]
    assert sent[0]["content"] == text[:600] + text[-600:]
    assert (cut.token_len, cut.original_tokens) == (300, -(-len(text) // 4))
    assert cut.context_tokens < example.meta["context_tokens"] == -(-len(rows[1]["context"]) // 4)
    assert "1 of 2 prompts had more than 301 tokens and were cut in the middle" in said


@pytest.mark.parametrize("limit", [60, 61, 97, 150])
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_cut_prompt_is_the_one_longbenchs_script_makes(
    tmp_path: Path, byte_level: Path, limit: int, endpoint: str
) -> None:
    """Ids of the plain prompt, special tokens among them; halves decoded; only then the chat template."""
    rows = [{**numbered(1)[0], "context": "the cat 汉字 sat, 字汉 " * 40, "question": "who sat 汉 ?"}]
    options = (f"tokenizer.name={byte_level}", f"prompt.max_context_tokens={limit}", f"prompt.endpoint={endpoint}",
               "prompt.template='the cat: {context} and {question}'", "prompt.system=the dog")  # fmt: skip
    prepared, _ = quiet(jsonl_settings(tmp_path, rows, *options))
    ((entry, example),) = read_items(prepared.path)

    backend = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    ids = backend.encode(f"the cat: {rows[0]['context']} and {rows[0]['question']}").ids
    official = backend.decode(ids[: limit // 2]) + backend.decode(ids[-(limit // 2) :])
    assert f"the cat: {example.context} and {example.question}" == official
    if endpoint == "chat":
        templated = f"<s>[system]the dog[user]{official}>"
        assert entry.token_len == len(backend.encode(templated, add_special_tokens=False))
    else:
        assert entry.token_len == len(backend.encode(f"the dog\n\n{official}"))


def test_a_limit_that_leaves_no_room_for_the_context_is_an_error(tmp_path: Path) -> None:
    for limit in (1, 8):
        config = jsonl_settings(tmp_path, numbered(9), f"prompt.max_context_tokens={limit}")
        with pytest.raises(ConfigError, match="leaves no room") as caught:
            prepare(config)
        assert "in.jsonl:" in caught.value.where


@pytest.mark.parametrize(
    ("rows", "overrides", "says"),
    [
        ([], (), "the source holds no examples"),
        (["", " "], (), "the source holds no examples"),
        (numbered(3), ("binning.edges=[5000, 6000]",), "none of 3 examples has a length within the edges"),
        ([numbered(1)[0]] * 2, (), "the example_id 'e000' was already used at .*:1"),
        ([{"question": "q", "context": "c", "answers": []}] * 2, (), "was already used at .*:1"),
        (numbered(3), ("prompt.template='{context}'",), r"the template needs \{question\} exactly once"),
    ],
)
def test_bad_input_is_an_error_and_leaves_nothing_behind(
    tmp_path: Path, rows: list[dict[str, Any] | str], overrides: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        prepare(jsonl_settings(tmp_path, rows, *overrides))
    assert [p for p in (tmp_path / "data").rglob("*") if p.name != "processed"] == []


def test_what_is_allowed_but_odd_is_said(tmp_path: Path) -> None:
    rows = [{"question": f"q {i}", "context": "", "answers": []} for i in range(3)] + numbered(1)
    prepared, said = quiet(jsonl_settings(tmp_path, rows, "binning.n_bins=2", "binning.edges=[3, 7, 9]"))
    assert "3 of 4 examples have an empty context" in said
    assert "3 of 4 examples have no answers: only an empty answer is right" in said
    assert "1 of 4 examples lie outside binning.edges and were left out" in said
    assert "bin 1: 0 examples, 5 asked; there are no more" in said
    clusters = {entry.context_sha256 for entry, _ in read_items(prepared.path)}
    assert len(clusters) == 3, "an empty context is shared with nobody"


def test_examples_without_answers_score_zero_under_a_tasks_own_metric(tmp_path: Path) -> None:
    rows = [{"question": "q", "context": "rain", "answers": []}, *numbered(1)]
    _, said = quiet(jsonl_settings(tmp_path, rows, "dataset.params={metric: rouge}", "binning.n_bins=1"))
    assert "1 of 2 examples have no answers: they can only score 0" in said


def test_any_script_and_one_line_of_a_million_characters_arrive_unchanged(tmp_path: Path) -> None:
    texts = ["会议 讨论 预算", "مرحبا بالعالم", "e\u0301 \U0001f600 \u2028 \x85 \u00a0 end", "rain " * 200_000]
    rows = [{"question": "什么 ?", "context": text, "answers": ["预算"]} for text in texts]
    prepared, _ = quiet(
        jsonl_settings(tmp_path, rows, "binning.n_bins=2", "binning.n_per_bin=4", "tokenizer.name=approx:chars/4")
    )
    found = {example.context for _, example in read_items(prepared.path)}
    assert found == set(texts)
    assert max(entry.token_len for entry, _ in read_items(prepared.path)) > 250_000


def test_unbalanced_lengths_fill_bins_as_evenly_as_ties_allow(tmp_path: Path) -> None:
    rows = [*({**row, "context": "rain " * 5} for row in numbered(20)), *({**row, "example_id": f"long{i}"} for i, row
        in enumerate(numbered(2, words=300)))]  # fmt: skip
    prepared, said = quiet(jsonl_settings(tmp_path, rows, "binning.n_bins=3", "binning.n_per_bin=50"))
    assert sum(row["n"] for row in prepared.head.bins) == 22
    assert len(prepared.head.bins) == 3
    assert any("asked; there are no more" in line for line in said)


def test_a_focus_manifest_grows_and_keeps_everything_it_had(tmp_path: Path) -> None:
    options = ("sampling.strategy=focus_transition", "binning.n_per_bin=2", "binning.n_bins=3")
    config = jsonl_settings(tmp_path, numbered(30), *options)
    first, _ = quiet(config)
    before = list(read_items(first.path))
    asked: list[ManifestHead] = []

    def grow(head: ManifestHead) -> dict[int, int]:
        asked.append(head)
        return {1: 4, 2: 0}

    second, _ = quiet(config, grow=grow)
    after = list(read_items(second.path))
    assert asked == [first.head]
    assert (second.dataset_id, second.head.bin_edges) == (first.dataset_id, first.head.bin_edges)
    assert after[: len(before)] == before
    assert [(entry.bin_idx, entry.version) for entry, _ in after[len(before) :]] == [(1, 2)] * 4
    assert second.per_bin == {0: 2, 1: 6, 2: 2}
    assert second.head.earlier == [{"version": 1, "n_entries": 6, "sha256": first.head.sha256}]
    assert quiet(config)[0].skipped, "the grown manifest stands"

    shortest = jsonl_settings(tmp_path, numbered(30))
    quiet(shortest)
    with pytest.raises(ConfigError, match="can't grow"):
        prepare(shortest, grow=grow)


def test_the_group_contract_is_flat_and_leaves_out_what_may_change(tmp_path: Path) -> None:
    def contract(*overrides: str) -> dict[str, Any]:
        config = jsonl_settings(tmp_path, numbered(5), *overrides)
        head = quiet(config)[0].head
        shared, own = group_contract(config, head), task_contract(config, head)
        assert not shared.keys() & own.keys()
        return {**shared, **own}

    base = contract()
    assert base["tokenizer.sha256"] == load_tokenizer(settings(tmp_path)).sha256
    elsewhere = ("engine.base_url=http://elsewhere/v1", "limits.concurrency=1", "analysis.seed=2", "decoding.samples=3")
    assert base == contract(*elsewhere)
    for override, field in (("decoding.max_tokens=9", "decoding.max_tokens"), ("model.name=m", "model.name")):
        changed = contract(override)
        assert [key for key in base if base[key] != changed[key]] == [field]


def test_memory_does_not_grow_with_the_number_of_examples(tmp_path: Path) -> None:
    """Peak Python allocations for 10 times the rows stay within what ids and lengths need, far below the text."""
    import tracemalloc

    peaks, text = [], 4000
    for n in (500, 5000):
        path = tmp_path / f"{n}.jsonl"
        with path.open("w") as file:
            for i in range(n):
                row = {
                    "example_id": f"e{i}",
                    "question": "q",
                    "context": f"{i} " + "x" * (text + i % 97),
                    "answers": [],
                }
                file.write(orjson.dumps(row).decode() + "\n")
        overrides = ("dataset.name=jsonl", "dataset.task=mine", f"dataset.path={path}", f"binning.n_per_bin={n}")
        config = settings(tmp_path, *overrides, "tokenizer.name=approx:chars/4")
        tracemalloc.start()
        prepared, _ = quiet(config)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert prepared.n_entries == n
    assert peaks[1] - peaks[0] < 4500 * text * 0.25
