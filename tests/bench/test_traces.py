"""Traces: readers of every format, what is dropped and said, and prompts that share what the trace says."""

import gzip
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvt_async.bench.traces import seen_prefixes
from kvt_async.bench.traces.seen_prefixes import MOST_DENSE, SeenPrefixes
from kvt_async.bench.traces.trace_files import TraceFile
from kvt_async.bench.traces.trace_rows import TraceRow
from kvt_async.bench.traces.trace_summary import summarise
from kvt_async.bench.traces.trace_workload import FromTrace
from kvt_async.bench.workload import Place, WorkloadPrompt, load_workload
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings
from kvt_async.data.tokens import load_tokenizer

MOONCAKE = [
    {"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 1500, "input_length": 1100, "output_length": 6, "hash_ids": [0, 1, 3]},
    {"timestamp": 2000, "input_length": 600, "output_length": 7, "hash_ids": [4, 5]},
    {"timestamp": 2000, "input_length": 1200, "output_length": 8, "hash_ids": [0, 1, 2]},
]


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def workload(path: Path, *overrides: str, tokenizer: str = "approx:chars/4") -> FromTrace:
    config = load_settings(None, [
        "experiment.exp_group_id=b", f"tokenizer.name={tokenizer}", "bench.workload.kind=trace",
        f"bench.workload.path={path}", "bench.replay=true", *overrides,
    ], environ={})  # fmt: skip
    work = load_workload(config)
    assert isinstance(work, FromTrace)
    return work


def rendered(prompts: Sequence[WorkloadPrompt], tokenizer: str) -> list[list[int]]:
    """Tokens of each prompt as a server sees them."""
    loaded = load_tokenizer(load_settings(None, [f"tokenizer.name={tokenizer}"], environ={}))
    return loaded.ids([loaded.chat.render(p.messages) if loaded.chat else p.messages[0]["content"] for p in prompts])


def cached_tokens(prompts: Sequence[Sequence[int]], block: int) -> list[int]:
    """What a prefix cache of blocks without limits finds of each prompt."""
    seen: set[tuple[int, ...]] = set()
    shares = []
    for ids in prompts:
        whole = [tuple(ids[:end]) for end in range(block, len(ids) + 1, block)]
        shares.append(block * sum(1 for _ in itertools.takewhile(seen.__contains__, whole)))
        seen.update(whole)
    return shares


# ---- readers


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        (
            "mooncake", '{"timestamp": 1500, "input_length": 7, "output_length": 3, "hash_ids": [4]}\n',
            [TraceRow(1, 1.5, 7, 3, [4])],
        ),
        (
            "bailian",
            '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 61.5, "input_length": 7, "output_length": 3, '
            '"type": "text", "turn": 1, "hash_ids": [4]}\n',
            [TraceRow(1, 61.5, 7, 3, [4])],
        ),
        (
            "azure", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,374,44\n"
            "2023-11-16 18:17:04.0319600+00:00,396,109\n",
            [TraceRow(2, 1700158623.97996, 374, 44), TraceRow(3, 1700158624.03196, 396, 109)],
        ),
        (
            "burstgpt", "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n",
            [TraceRow(2, 5.0, 472, 18)],
        ),
        ("csv", "timestamp,input,output\n0.5,10,4\n\n1,11,\n", [TraceRow(2, 0.5, 10, 4), TraceRow(4, 1.0, 11, None)]),
        ("csv", "0,10,4\r\n1,11,5\r\n", [TraceRow(1, 0.0, 10, 4), TraceRow(2, 1.0, 11, 5)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_is_recognised_from_its_head_and_read(
    tmp_path: Path, name: str, text: str, rows: list[TraceRow], packed: bool
) -> None:
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(text.encode()) if packed else b"\xef\xbb\xbf" + text.encode())
    file = TraceFile(path)
    assert (file.format, list(file.rows())) == (name, rows)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}\n{"timestamp": 0,', r"trace:2"),
        ('{"timestamp": 0, "input_length": -5, "output_length": 1}\n', "trace:1"),
        ('{"timestamp": 0, "input_length": 5.5, "output_length": 1}\n', "trace:1"),
        ('{"timestamp": "soon", "input_length": 5, "output_length": 1}\n', "trace:1"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [[1]]}\n', "trace:1"),
        ('{"a": 1}\n', "trace:1"),
        ("timestamp,input,output\n1,2,3\n1,many,3\n", "trace:3"),
        ("timestamp,input,output\n1,2\n", "trace:2"),
        ("when,what\n1,2\n", "trace:1"),
        ("[1]", "JSON array"),
        ("\n\n", "empty"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_that_names_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        list(TraceFile(path).rows())
    assert says in str(error.value)


def test_a_damaged_gzip_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(b"timestamp,input,output\n" + b"1,2,3\n" * 1000)[:40])
    with pytest.raises(ConfigError, match="damaged"):
        list(TraceFile(path, "csv").rows())


def test_what_is_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", [
        *MOONCAKE,
        {"timestamp": 1, "input_length": 9, "output_length": 0}, {"timestamp": 1, "output_length": 4},
        {"timestamp": 1, "text_input": "hello", "output_length": 4}, {"timestamp": 1, "input_length": 0},
        {"session_id": "a", "delay": 5, "input_length": 4, "output_length": 4},
        {"timestamp": 2500, "input_length": 9},
        {"timestamp": 1000, "input_length": 9, "output_length": 2},
    ])  # fmt: skip
    work = workload(path, "bench.workload.max_input_tokens=1150")
    notes = "\n".join(work.notes)
    assert work.summary.part.n == 3
    for said in (
        "2 rows are longer than max_input_tokens 1,150", "1 rows have a reply of 0 tokens",
        "1 rows have no input_length",
        "1 rows bring their own text", "1 rows have a prompt of 0 tokens", "1 rows have no timestamp",
        "1 rows have no output length", "1 rows are earlier than the row before",
    ):  # fmt: skip
        assert said in notes


CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers()))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["timestamp", "input_length", "output_length", "hash_ids"]), CELLS)))
def test_whatever_a_line_holds_is_a_request_a_counted_row_or_an_error(rows: list[dict[str, Any]]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
        file.flush()
        trace, read = TraceFile(Path(file.name), "mooncake"), []
        try:
            read = list(trace.rows())
        except ConfigError as error:
            refusal = str(error)
        else:
            refusal = ""
    assert (refusal == "") == (len(read) + trace.dropped.total() == len(rows))
    assert refusal == "" or f"{file.name}:" in refusal
    assert all(row.input_tokens > 0 for row in read)


# ---- what prompts share

IDS = st.lists(st.sampled_from([0, 1, 2, 3, MOST_DENSE + 5, "a"]), max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(IDS, st.integers(0, 2)), max_size=12))
def test_a_token_is_shared_where_it_came_before_after_the_same_predecessors(
    prompts: list[tuple[list[int | str], int]],
) -> None:
    """Blocks of 3 tokens, the last one in part; a token is its block's id and its place in it."""
    seen, known = SeenPrefixes(lambda k: 3 * k), set[tuple[tuple[int | str, int], ...]]()
    for ids, missing in prompts:
        tokens = [(block, n) for block in ids for n in range(3)]
        tokens = tokens[: max(0, len(tokens) - missing)]
        heads = [tuple(tokens[:n]) for n in range(1, len(tokens) + 1)]
        assert seen.shared(ids, len(tokens)) == sum(1 for _ in itertools.takewhile(known.__contains__, heads))
        known.update(heads)


def test_what_is_remembered_of_a_trace_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_prefixes, "SLOTS", 8)
    monkeypatch.setattr(seen_prefixes, "MOST_PLACES", 3)
    seen = SeenPrefixes(lambda k: k)
    for n in range(100):  # each comes at once again, with an id that names all before it and with one that doesn't
        assert [seen.shared([n], 1), seen.shared([n], 1), seen.shared([f"text {n}"], 1)] == [0, 1, 0]
        assert seen.shared([f"text {n}"], 1) == 1
    assert (len(seen._ids), len(seen._places)) == (8, 3)
    assert [seen.shared([99], 1), seen.shared([0], 1)] == [1, 0]


def test_the_known_trace_shares_what_it_says(tmp_path: Path) -> None:
    work = workload(written(tmp_path / "t.jsonl", MOONCAKE))
    prompts = work.prompts([Place(seq, "salt") for seq in range(4)])
    assert [p.details.shared_tokens for p in prompts] == [0, 1024, 0, 1200]
    assert [p.details.source_line for p in prompts] == [1, 2, 3, 4]
    assert [(p.at_s, p.input_tokens, p.output_tokens) for p in prompts] == [
        (0.0, 1200, 5), (1.5, 1100, 6), (2.0, 600, 7), (2.0, 1200, 8)
    ]  # fmt: skip
    assert work.summary.shared_tokens == 1024 + 1200
    assert "54.2% of their tokens begin like an earlier prompt" in "\n".join(work.about)


@pytest.mark.parametrize("tokenizer", ["reference", "approx:chars/4"])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_a_prefix_cache_finds_in_the_prompts_what_the_trace_says(tmp_path: Path, tokenizer: str, scale: float) -> None:
    rows = [
        {"timestamp": 0, "input_length": 700 + 300 * (n % 4), "output_length": 1,
         "hash_ids": [n % 2, 10 + n % 3, 20 + n, 100 + n][: 2 + n % 4]}
        for n in range(12)
    ]  # fmt: skip
    work = workload(written(tmp_path / "t.jsonl", rows), f"bench.workload.length_scale={scale}", tokenizer=tokenizer)
    prompts = work.prompts([Place(seq, "salt") for seq in range(12)])
    ids = rendered(prompts, tokenizer)
    assert [len(one) for one in ids] == [p.input_tokens for p in prompts] == [
        round(row["input_length"] * scale) for row in rows  # type: ignore[operator]
    ]  # fmt: skip
    found, told = cached_tokens(ids, 1), [p.details.shared_tokens or 0 for p in prompts]
    tail = 12  # of the chat template: the last tokens of a prompt are no text of a block
    assert all(one >= said - tail for one, said in zip(found, told, strict=True))
    # words are drawn: the template, the first word of all, and now and then one that happens to be equal come on top
    assert all(one <= said + tail for one, said in zip(found, told, strict=True))
    if scale == 1.0:
        assert sum(cached_tokens(ids, 512)) == pytest.approx(sum(said // 512 * 512 for said in told), rel=0.01)


def test_stages_repeats_passes_and_warm_ups_share_nothing_with_each_other(tmp_path: Path) -> None:
    work = workload(written(tmp_path / "t.jsonl", MOONCAKE), tokenizer="reference")
    places = [Place(0, "one"), Place(4, "one"), Place(0, "two"), Place(4, "one", 0, True)]
    ids = rendered([work.prompts([place])[0] for place in places], "reference")
    assert [len(one) for one in ids] == [1200] * 4
    assert all(found < 16 for found in cached_tokens(ids, 1))
    again = rendered(work.prompts([Place(0, "one")]), "reference")
    assert again == ids[:1]


def test_prompts_are_the_same_in_whatever_order_and_blocks_they_are_asked_for(tmp_path: Path) -> None:
    rows = [{"timestamp": n, "input_length": 30 + n % 50, "output_length": 1 + n % 9} for n in range(700)]
    path = written(tmp_path / "t.jsonl", rows)
    whole = workload(path).prompts([Place(seq, "s") for seq in range(700)])
    asked = [699, 3, 400, 401, 300, 699, 0]
    work = workload(path)
    assert [work.prompts([Place(seq, "s")])[0] for seq in asked] == [whole[seq] for seq in asked]
    assert work.prompts([Place(703, "s")])[0].details.source_line == 4


def test_a_prompt_shorter_than_the_template_is_sent_as_short_as_one_can_be_and_this_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", [{"timestamp": 0, "input_length": 1, "output_length": 1}] * 3)
    work = workload(path, tokenizer="reference")
    (prompt,) = work.prompts([Place(0, "s")])
    assert [len(ids) for ids in rendered([prompt], "reference")] == [prompt.input_tokens]
    assert any("3 prompts are shorter than the chat template" in note for note in work.notes)


def test_a_part_of_a_trace_ends_at_its_seconds_or_its_requests(tmp_path: Path) -> None:
    rows = [{"timestamp": 1000 * n, "input_length": 30, "output_length": 1} for n in range(100)]
    path = written(tmp_path / "t.jsonl", rows)
    for overrides, n, seconds in (
        (("bench.requests=7",), 7, 6.0),
        (("bench.duration_s=10",), 11, 10.0),
        (("bench.duration_s=2", "bench.workload.speed=10"), 21, 20.0),
        (("bench.max_s=3",), 4, 3.0),
        ((), 100, 99.0),
    ):
        part = workload(path, *overrides).summary.part
        assert (part.n, part.seconds) == (n, seconds)
    work = workload(path, "bench.replay=false", "bench.sweep_speed=[1, 4]", "bench.duration_s=5")
    assert {end: part.n for end, part in work.summary.parts.items()} == {5.0: 6, 20.0: 21}
    assert summarise(work._source, most_requests=None, until_s=(), least_tokens=1).whole
