"""What length bins are called in tables, charts and verdicts: by the prompts that are in them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from analyzer.results.length_bins import Bin, length_bins, span_label
from kvt_async.contract.schema import connect_for_writing
from kvt_async.data.manifest_store import store_manifest
from kvt_async.data.prepare import prepare
from kvt_async.data.tasks import tasks_of
from tests.worlds import settings_of


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect_for_writing(tmp_path / "db.sqlite")) as opened:
        yield opened


def bins_of(conn: sqlite3.Connection, folder: Path, *overrides: str) -> list[Bin]:
    """The bins of a data set that was prepared and stored as a sweep does."""
    (task,) = tasks_of(settings_of("tokenizer.name=approx:chars/4", f"output.data_dir={folder}/data", *overrides)).tasks
    done = prepare(task.settings, report=lambda _: None)
    store_manifest(conn, done.path, dataset_id=done.dataset_id)
    return length_bins(conn, done.dataset_id)


def own_data(folder: Path, lengths: list[int], per_length: int = 5) -> list[str]:
    """A jsonl file whose prompts have these lengths in tokens, or up to four more."""
    rows = [
        {"question": "q", "context": f"{length}-{i} ".ljust(4 * (length + i), "x"), "answers": ["a"]}
        for length in lengths
        for i in range(per_length)
    ]
    (folder / "in.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return ["dataset.name=jsonl", "dataset.task=own", f"dataset.path={folder}/in.jsonl"]


def test_a_bin_is_called_by_its_shortest_and_longest_prompt_and_not_by_its_edges(
    conn: sqlite3.Connection, tmp_path: Path
) -> None:
    bins = bins_of(conn, tmp_path, *own_data(tmp_path, [190, 440, 1156]), "binning.n_bins=3")
    assert [b.label for b in bins] == ["191–195", "441–445", "1,157–1,161"]
    edges = conn.execute("SELECT lo_tokens FROM bins ORDER BY bin_idx").fetchall()
    assert edges[2] == (446,), "the edge reaches down to where no prompt is"


def test_only_what_was_chosen_names_a_bin(conn: sqlite3.Connection, tmp_path: Path) -> None:
    bins = bins_of(conn, tmp_path, *own_data(tmp_path, [100, 200]), "binning.n_bins=2", "binning.n_per_bin=2")
    assert [b.label for b in bins] == ["101–102", "201–202"]


def test_a_bin_without_examples_keeps_its_edges(conn: sqlite3.Connection, tmp_path: Path) -> None:
    bins = bins_of(conn, tmp_path, *own_data(tmp_path, [100]), "binning.edges=[0, 150, 300]")
    assert [b.label for b in bins] == ["101–105", "151–300"]


def generated(conn: sqlite3.Connection, folder: Path, *overrides: str) -> list[str]:
    """Labels of prompts that were made for 1,000 and 2,048 tokens."""
    ruler = ("dataset.name=ruler", "dataset.task=niah_multikey_1", "binning.n_per_bin=9")
    lengths = "dataset.params={lengths: [1000, 2048], per_length: 4}"
    return [b.label for b in bins_of(conn, folder, *ruler, lengths, *overrides)]


@pytest.mark.parametrize("more", [(), ("binning.n_bins=2",)], ids=["asked lengths", "as many quantiles"])
def test_a_bin_of_one_asked_length_is_called_by_it(
    conn: sqlite3.Connection, tmp_path: Path, more: tuple[str, ...]
) -> None:
    assert generated(conn, tmp_path, *more) == ["1,000", "2k"]


@pytest.mark.parametrize(
    "more",
    [("binning.by=quantile",), ("prompt.max_context_tokens=1500", "binning.n_bins=2")],
    ids=["three bins of two lengths", "cut prompts"],
)
def test_where_bins_and_asked_lengths_differ_no_bin_is_called_by_one(
    conn: sqlite3.Connection, tmp_path: Path, more: tuple[str, ...]
) -> None:
    assert not {"1,000", "2k"} & set(generated(conn, tmp_path, *more))


def test_no_two_bins_have_one_name(conn: sqlite3.Connection, tmp_path: Path) -> None:
    bins_of(conn, tmp_path, *own_data(tmp_path, [100]), "binning.n_bins=1")
    conn.execute("INSERT INTO bins SELECT dataset_id, 1, 101, 105 FROM bins")
    (name,) = conn.execute("SELECT dataset_id FROM datasets").fetchone()
    assert [b.label for b in length_bins(conn, name)] == ["101–105 (bin 0)", "101–105 (bin 1)"]


def test_neighbours_are_called_together() -> None:
    asked = [Bin(0, 880, 990, 1024), Bin(1, 1900, 2010, 2048), Bin(2, 3900, 4010, 4096)]
    assert span_label(asked) == "1k–4k"
    assert span_label(asked[:1]) == "1k"
    assert span_label([Bin(0, 190, 194), Bin(1, 441, 451)]) == "190–451"
    assert Bin(-1, 0, 0).label == "all lengths"
