"""Prompts: exact lengths, distributions, salts and files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from kvt_async.bench import length_draws, prompt_files
from kvt_async.bench.request_details import RequestDetails
from kvt_async.bench.workload import Place, Workload, WorkloadPrompt, load_workload
from kvt_async.bench.workload_file import workload_overrides
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.lengths import Lengths
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.data.prepare import prepare
from kvt_async.data.tokens import load_tokenizer
from tests.data.helpers import jsonl_settings, numbered


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte-level BPE tokenizer with a chat template, trained on the spot on our own docs."""
    folder = tmp_path_factory.mktemp("bpe")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    docs = [path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "docs").glob("*.md")]
    backend.train_from_iterator(docs, trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet))
    backend.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n"
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps({"chat_template": template}))
    return str(folder)


def settings(tokenizer: str, *overrides: str) -> Settings:
    return load_settings(None, ["experiment.exp_group_id=b", f"tokenizer.name={tokenizer}", *overrides], environ={})


def served_ids(config: Settings, prompts: Sequence[WorkloadPrompt]) -> list[list[int]]:
    """Tokens of each prompt as a server of this tokenizer sees them."""
    tokenizer = load_tokenizer(config)
    chat = tokenizer.chat
    return tokenizer.ids([chat.render(p.messages) if chat else p.messages[0]["content"] for p in prompts])


@pytest.mark.parametrize("kind", ["reference", "approx:chars/4", "bpe"])
def test_prompts_have_exactly_the_asked_number_of_tokens_chat_template_included(kind: str, bpe: str) -> None:
    config = settings(
        bpe if kind == "bpe" else kind, "bench.workload.input_tokens.kind=uniform",
        "bench.workload.input_tokens.low=30", "bench.workload.input_tokens.high=400",
    )  # fmt: skip
    prompts = load_workload(config).prompts([Place(seq, "salt") for seq in range(100)])
    assert [p.input_tokens for p in prompts] == [len(ids) for ids in served_ids(config, prompts)]
    assert len({p.input_tokens for p in prompts}) > 50
    assert 30 <= min(p.input_tokens for p in prompts) <= max(p.input_tokens for p in prompts) <= 400


@pytest.mark.parametrize("kind", ["reference", "approx:chars/4", "bpe"])
def test_salted_prompts_never_share_a_cache_block_over_places_and_stages(kind: str, bpe: str) -> None:
    config = settings(bpe if kind == "bpe" else kind, "bench.workload.input_tokens.value=64")
    work = load_workload(config)
    (alone,) = served_ids(config, [WorkloadPrompt([{"role": "user", "content": ""}], 0, 0)])
    places = [Place(seq, salt) for salt in ("stage-1", "stage-2") for seq in range(100)]
    heads = [tuple(ids[: len(alone) + 16]) for ids in served_ids(config, work.prompts(places))]
    assert len(set(heads)) == len(heads)


def test_without_salt_the_prompts_of_all_stages_are_the_same() -> None:
    config = settings("reference", "bench.salt=false", "bench.workload.input_tokens.value=64")
    work = load_workload(config)
    first, again = (work.prompts([Place(seq, None, 0) for seq in range(5)]) for _ in range(2))
    assert first == again
    assert len({p.messages[0]["content"] for p in first}) == 5


def test_groups_share_exactly_their_prefix_within_a_stage_and_not_over_stages() -> None:
    config = settings(
        "reference", "bench.workload.prefix={groups: 3, tokens: 100}", "bench.workload.input_tokens.value=50"
    )
    work = load_workload(config)
    one, two = (work.prompts([Place(seq, salt) for seq in range(6)]) for salt in ("one", "two"))
    assert [p.group_idx for p in one] == [0, 1, 2, 0, 1, 2]
    assert {p.input_tokens for p in one} == {150}
    ids = served_ids(config, one)
    shared = next(n for n, (a, b) in enumerate(zip(ids[0], ids[3], strict=True)) if a != b)
    assert shared >= 100
    assert served_ids(config, two)[0][:20] != ids[0][:20]
    assert ids[0][:20] != ids[1][:20]


def test_a_prompt_too_short_for_its_template_is_refused_before_anything_is_sent(bpe: str) -> None:
    with pytest.raises(ConfigError, match="can't be made"):
        load_workload(settings(bpe, "bench.workload.input_tokens.value=3"))


def test_lengths_follow_their_distribution_and_stay_within_bounds() -> None:
    def drawn(**fields: object) -> np.ndarray:
        spec = Lengths.model_validate(fields)
        return np.array([length_draws.draw(spec, (1, 0, n)) for n in range(2000)])

    normal = drawn(kind="normal", value=200, std=40, low=100, high=300)
    assert normal.mean() == pytest.approx(200, abs=4)
    assert normal.min() >= 100
    assert normal.max() <= 300
    assert (normal == 100).mean() < 0.01  # drawn again, not piled up at the bound
    lognormal = drawn(kind="lognormal", value=200, std=100, low=1, high=100_000)
    assert lognormal.mean() == pytest.approx(200, rel=0.06)
    assert lognormal.std() == pytest.approx(100, rel=0.15)
    listed = drawn(kind="list", values=[10, 20], weights=[1, 3])
    assert (listed == 20).mean() == pytest.approx(0.75, abs=0.04)
    assert set(drawn(kind="uniform", low=5, high=8)) == {5, 6, 7, 8}


def test_jsonl_is_read_in_the_shapes_people_have(tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "Hi there"},
                           {"from": "gpt", "value": "x" * 40}]},
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "m", "messages": [{"role": "user", "content": "Batch"}], "max_tokens": 33}},
        {"prompt": "Plain", "output_tokens": 7},
    ]  # fmt: skip
    file = tmp_path / "w.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    config = settings("approx:chars/4", "bench.workload.kind=jsonl", f"bench.workload.path={file}",
                      "bench.workload.output_tokens=null", "bench.salt=false")  # fmt: skip
    prompts = load_workload(config).prompts([Place(seq, None) for seq in range(4)])
    assert [p.messages[-1]["content"] for p in prompts] == ["Hi there", "Batch", "Plain", "Hi there"]
    assert [p.output_tokens for p in prompts] == [10, 33, 7, 10]


def test_prompts_have_the_template_of_their_manifest_or_none(tmp_path: Path) -> None:
    bare = hashlib.sha256(b"\x1f\x1fchat").hexdigest()  # template, system text, endpoint
    assert load_workload(settings("approx:chars/4")).template_version == bare
    assert from_file(tmp_path, b'{"prompt": "a"}\n').template_version == bare
    assert load_workload(settings("approx:chars/4", "prompt.system=be brief")).template_version != bare
    prepared = prepare(jsonl_settings(tmp_path, numbered(5)), report=lambda _: None)
    made = settings("approx:chars/4", "bench.workload.kind=manifest", f"bench.workload.path={prepared.path}")
    assert load_workload(made).template_version == prepared.head.prompt["template_version"] != bare


def test_a_salted_file_sends_the_same_text_behind_different_heads(tmp_path: Path) -> None:
    file = tmp_path / "w.jsonl"
    file.write_bytes(b'{"prompt": "One"}\n')
    config = settings("approx:chars/4", "bench.workload.kind=jsonl", f"bench.workload.path={file}")
    texts = [p.messages[0]["content"] for p in load_workload(config).prompts([Place(0, "a"), Place(1, "a")])]
    assert texts[0] != texts[1]
    assert all(text.endswith("\n\nOne") for text in texts)


@pytest.mark.parametrize(
    ("content", "says"), [("{", "not JSON"), ('{"text": 1}', "no prompt is found"), ("", "has no prompts")]
)
def test_a_file_that_is_no_workload_is_refused_with_its_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "w.jsonl"
    file.write_text(content)
    with pytest.raises(ConfigError, match=says) as caught:
        load_workload(settings("approx:chars/4", "bench.workload.kind=jsonl", f"bench.workload.path={file}"))
    assert "w.jsonl" in caught.value.where


def from_file(tmp_path: Path, content: bytes, name: str = "w.jsonl") -> Workload:
    (tmp_path / name).write_bytes(content)
    return load_workload(settings("approx:chars/4", "bench.workload.kind=jsonl",
                                  f"bench.workload.path={tmp_path / name}", "bench.workload.output_tokens=null",
                                  "bench.salt=false"))  # fmt: skip


@pytest.mark.parametrize("value", ["4", "4.0", '"4"', '"4.0"', "4e0"])
def test_a_length_in_a_file_is_the_number_it_stands_for_whatever_its_type(tmp_path: Path, value: str) -> None:
    (prompt,) = from_file(tmp_path, b'{"prompt": "a", "output_tokens": %b}' % value.encode()).prompts([Place(0, None)])
    assert prompt.output_tokens == 4


@pytest.mark.parametrize(
    "value", ["0", "-3", "4.5", '"four"', "true", "[4]", "1000000000000000", '"inf"', '"nan"', '""']
)
@pytest.mark.parametrize("key", ["output_tokens", "max_tokens"])
def test_a_length_that_cannot_be_asked_for_is_refused_with_its_line(tmp_path: Path, key: str, value: str) -> None:
    rows = b'{"prompt": "a"}\n{"prompt": "b", "%b": %b}\n' % (key.encode(), value.encode())
    with pytest.raises(ConfigError, match="no length") as caught:
        from_file(tmp_path, rows)
    assert caught.value.where.endswith("w.jsonl:2")


def test_a_length_of_null_is_none_given(tmp_path: Path) -> None:
    (prompt,) = from_file(tmp_path, b'{"prompt": "a", "output_tokens": null}').prompts([Place(0, None)])
    assert prompt.output_tokens == 256  # decoding.max_tokens


def test_sharegpt_is_read_as_it_is_published(tmp_path: Path) -> None:
    """One array, a byte order mark, conversations in which nobody asks anything."""
    rows = [
        {"conversations": []},
        {"conversations": [{"from": "gpt", "value": "I begin"}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "x" * 40}]},
    ]
    workload = from_file(tmp_path, b"\xef\xbb\xbf" + orjson.dumps(rows, option=orjson.OPT_INDENT_2), "sharegpt.json")
    assert workload.size == 1
    assert workload.notes == [f"{tmp_path}/sharegpt.json: 2 rows have no human turn and are left out"]
    (prompt,) = workload.prompts([Place(0, None)])
    assert (prompt.messages[-1]["content"], prompt.output_tokens) == ("Hi", 10)


def test_a_line_and_an_array_are_never_read_beyond_their_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_files, "MOST_LINE_BYTES", 1 << 20)
    monkeypatch.setattr(prompt_files, "MOST_ARRAY_BYTES", 2 << 20)
    row = b'{"prompt": "%s"}'
    assert from_file(tmp_path, row % (b"a" * 1_000_000)).size == 1
    assert from_file(tmp_path, b"[" + row % (b"a" * 2_000_000) + b"]").size == 1
    with pytest.raises(ConfigError, match=r":2: this line is longer than 1 MiB"):
        from_file(tmp_path, row % b"a" + b"\n" + row % (b"a" * 1_100_000))
    with pytest.raises(ConfigError, match="this array is longer than 2 MiB"):
        from_file(tmp_path, b"[" + row % (b"a" * 2_200_000) + b"]")


def test_content_parts_that_are_text_are_joined_and_a_picture_is_refused(tmp_path: Path) -> None:
    def row(*parts: dict[str, Any]) -> bytes:
        return orjson.dumps({"body": {"messages": [{"role": "user", "content": list(parts)}]}})

    text = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (prompt,) = from_file(tmp_path, row(*text)).prompts([Place(0, None)])
    assert prompt.messages[-1]["content"] == "ab"
    with pytest.raises(ConfigError, match="no prompt is found"):
        from_file(tmp_path, row(*text, {"type": "image_url", "image_url": {"url": "x"}}))


def test_lengths_of_a_file_that_are_not_asked_for_are_mentioned(tmp_path: Path) -> None:
    (tmp_path / "w.jsonl").write_bytes(b'{"prompt": "a", "output_tokens": 4}')
    workload = load_workload(settings("approx:chars/4", "bench.workload.kind=jsonl",
                                      f"bench.workload.path={tmp_path}/w.jsonl"))  # fmt: skip
    (note,) = workload.notes
    assert "1 rows name a length for their reply; bench.workload.output_tokens is asked for instead" in note


def test_a_request_has_a_row_of_details_only_where_one_is_known() -> None:
    assert RequestDetails().row("r:0") is None
    assert RequestDetails(turn_idx=0, source_line=7).row("r:0") == (
        "bench_requests", ("r:0", None, 0, None, None, 7, None, None)
    )  # fmt: skip


SHORT_FORMS = [
    ("300", ["value=300"]),
    ("[128, 256]", ["kind=list", "values=[128, 256]"]),
    ("{values: [90, 70], weights: [1, 3]}", ["kind=list", "values=[90, 70]", "weights=[1, 3]"]),
    ("{low: 40, high: 90}", ["kind=uniform", "low=40", "high=90"]),
    ("{mean: 300, std: 50}", ["kind=normal", "value=300", "std=50"]),
    ("{mean: 300, std: 50, kind: lognormal}", ["kind=lognormal", "value=300", "std=50"]),
]


@pytest.mark.parametrize(("short", "long"), SHORT_FORMS)
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
def test_a_short_form_of_lengths_is_the_same_workload_as_its_long_one(name: str, short: str, long: list[str]) -> None:
    key = f"bench.workload.{name}"
    short_form, long_form = (
        settings("reference", f"{key}={short}"),
        settings("reference", *(f"{key}.{x}" for x in long)),
    )
    assert load_workload(short_form).describe() == load_workload(long_form).describe()
    assert short_form == long_form


def test_a_short_form_takes_the_place_of_the_files_lengths_and_bounds_alone_stay_bounds(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text("bench: {workload: {input_tokens: {kind: normal, value: 300, std: 50, low: 200, high: 400}}}\n")

    def lengths(*overrides: str) -> Lengths:
        return load_settings(file, overrides, environ={}).bench.workload.input_tokens

    assert lengths("bench.workload.input_tokens=20") == Lengths(kind="fixed", value=20)
    key = "bench.workload.input_tokens"
    bounded = lengths(f"{key}.low=250", f"{key}.high=350")
    assert (bounded.kind, bounded.value, bounded.low, bounded.high) == ("normal", 300, 250, 350)


@pytest.mark.parametrize("value", ["true", "abc", "[]", "{mean: 3, value: 4}", "0"])
def test_lengths_that_are_none_are_refused_with_the_forms_there_are(value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings("reference", f"bench.workload.input_tokens={value}")
    assert "bench.workload.input_tokens" in str(refused.value)
    if value in ("true", "abc"):
        assert "{mean: 300, std: 50}" in str(refused.value)


def test_the_kind_of_a_workloads_file_is_seen(tmp_path: Path) -> None:
    rows = jsonl_settings(tmp_path, numbered(4))
    manifest = prepare(rows, report=lambda _: None).path
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "hi"}\n')
    trace, table = tmp_path / "t.jsonl", tmp_path / "t.csv"
    trace.write_text('{"timestamp": 0, "input_length": 4, "output_length": 4, "hash_ids": [1]}\n')
    table.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,374,44\n")
    for given, file, kind in ((manifest, manifest, "manifest"), (manifest.parent, manifest, "manifest"),
                              (prompts, prompts, "jsonl"), (trace, trace, "trace"),
                              (table, table, "trace")):  # fmt: skip
        work = settings("reference", *workload_overrides(str(given))).bench.workload
        assert (work.kind, work.path) == (kind, str(file))
    with pytest.raises(ConfigError, match="there is no file"):
        workload_overrides(str(tmp_path / "no"))
