"""Published files: found by path or in a folder, and read record by record in every format, faults named by place."""

import io
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources import published_files
from kvt_async.data.sources.published_files import PublishedFile, list_items, open_file, records
from tests.data.helpers import settings

FILE = PublishedFile("someone/set", "0" * 40, "part/test.jsonl", names=("other.jsonl",))
ROWS = [
    {"id": "a", "text": 'a "quoted" \\ } ] word', "inner": {"x": [1, {"y": "]}"}]}},
    {"id": "b", "text": "", "inner": {}},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _read(path: Path) -> list[dict[str, object]]:
    return [record for _, record in records(path)]


def test_every_format_gives_the_same_records(tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    (tmp_path / "lines.json").write_text("\n".join(json.dumps(row) for row in ROWS))
    (tmp_path / "list.json").write_text(json.dumps(ROWS, indent=1))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"id": "a", "text": "x"}]), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text('\ufeffid,text\r\na,"x, ""y""\nz"\r\n', encoding="utf-8")
    for name in ("lines.jsonl", "lines.json", "list.json"):
        assert _read(tmp_path / name) == ROWS
    assert _read(tmp_path / "rows.parquet") == [{"id": "a", "text": "x"}]
    assert _read(tmp_path / "rows.csv") == [{"id": "a", "text": 'x, "y"\nz'}]


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5), st.integers(1, 40))
def test_a_list_is_cut_into_its_items_wherever_the_blocks_end(rows: list[dict[str, object]], block: int) -> None:
    text = json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published_files, "BLOCK", block)
        items = [json.loads(item) for _, item in list_items(io.BytesIO(text), "f", 1)]
    assert items == rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}, {"b": ', "does not end"),
        ('[{"a": 1}', "does not end"),
        ("[1, 2]", "no JSON object"),
        ('[{"a": 1}] [{"a": 2}]', "something follows the list"),
        ('[{"a": 1}]' + " " * 200 + "x", "something follows the list"),
        ('[{"a": "' + "x" * 3000 + '"}]', "longer than 0.001 MB"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_with_its_place(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_files, "BLOCK", 64)
    with pytest.raises(ConfigError, match=words) as error:
        list(list_items(io.BytesIO(text.encode()), "f.json", 0.001))
    assert (error.value.where or "").startswith("f.json:item ")


def test_values_of_a_table_that_json_lacks_are_texts(tmp_path: Path) -> None:
    row = {"price": Decimal("1.50"), "name": "é".encode(), "image": b"\xff\x00", "inner": {"span": [timedelta(days=1)]}}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (record,) = _read(tmp_path / "rows.parquet")
    assert record == {"price": "1.50", "name": "é", "image": None, "inner": {"span": ["1 day, 0:00:00"]}}


def test_files_that_are_not_what_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("not parquet")
    (tmp_path / "x.csv").write_text("a,b\n1\n")
    (tmp_path / "y.csv").write_text("a,a\n1,2\n")
    (tmp_path / "x.txt").write_text("a")
    for name, words in (
        ("y.csv", "two columns are called 'a'"),
        ("x.parquet", "can't be read"),
        ("x.csv", "another number of fields"),
        ("x.txt", "not read"),
    ):
        with pytest.raises(ConfigError, match=words):
            _read(tmp_path / name)


def test_a_file_is_found_as_itself_or_in_a_folder_under_each_of_its_names(tmp_path: Path) -> None:
    for place in ("whatever.jsonl", "folder/part/test.jsonl", "flat/test.jsonl", "named/other.jsonl"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("{}")
    for given_path in ("whatever.jsonl", "folder", "flat", "named"):
        assert open_file(FILE, settings(tmp_path, f"dataset.path={tmp_path / given_path}")).pin.startswith("sha256:")
    with pytest.raises(ConfigError, match=r"it holds no part/test\.jsonl") as caught:
        open_file(FILE, settings(tmp_path, f"dataset.path={tmp_path}"))
    assert "a folder that holds it (there also as other.jsonl)." in (caught.value.do or "")


def test_the_advice_names_what_a_file_may_be_called_but_not_each_folder_it_may_lie_in() -> None:
    names = ("v4.json", "checkout/v4.json", "v3.json", "checkout/v3.json", "TASK/test-00000.parquet")
    advice = PublishedFile("owner/set", "0" * 40, "v3.json", names).advice
    assert "(there also as v4.json, TASK/test-00000.parquet)" in advice
    golds = PublishedFile("owner/set", "0" * 40, "gold/v3.json", ("gold/v4.json", "checkout/gold/v4.json"))
    assert "(there also as gold/v4.json)" in golds.advice
