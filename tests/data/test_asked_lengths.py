"""Bins of the lengths that were asked for, under a dataset_id that means nothing else, and what bins are called."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.length_names import AskedLengths, length_name, span_name
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import manifest_path, run_paths
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Output, Settings
from kvt_async.data.bins import bin_of
from kvt_async.data.identity import dataset_id, selection_rule
from kvt_async.data.manifest import read_items
from kvt_async.data.manifest_store import store_manifest
from kvt_async.data.prepare import Prepared, check_data, prepare
from kvt_async.data.tasks import tasks_of


def settled(folder: Path, *overrides: str, task: str = "vt") -> Settings:
    settings = load_settings(
        None,
        [
            *("dataset.name=ruler", f"dataset.task={task}", "dataset.params={lengths: [1000, 2048], per_length: 6}"),
            *("tokenizer.name=approx:chars/4", f"output.data_dir={folder}/data", f"output.runs_dir={folder}/runs"),
            *overrides,
        ],
        environ={},
    )
    (only,) = tasks_of(settings).tasks
    return only.settings


def prepared(settings: Settings) -> tuple[Prepared, list[str]]:
    lines: list[str] = []
    return prepare(settings, report=lines.append), lines


def by_bin(done: Prepared) -> list[tuple[int, int]]:
    return sorted({(entry.bin_idx, example.meta["length"]) for entry, example in read_items(done.path)})


@pytest.mark.parametrize("n_bins", [1, 3, 5])
@pytest.mark.parametrize("task", ["vt", "niah_multikey_1", "cwe"])
def test_ruler_has_one_bin_a_length_whatever_n_bins_says(tmp_path: Path, n_bins: int, task: str) -> None:
    done, lines = prepared(settled(tmp_path, f"binning.n_bins={n_bins}", task=task))
    assert by_bin(done) == [(0, 1000), (1, 2048)]
    assert [row["n"] for row in done.head.bins] == [5, 5]
    assert [line.split(",")[0].strip() for line in lines if line.startswith("  bin")] == ["bin 0: 1", "bin 1: 2k"]


def test_one_quantile_bin_a_length_is_the_same_manifest_under_the_name_of_before(tmp_path: Path) -> None:
    settings = settled(tmp_path, "binning.n_bins=2")
    assert settings.binning.by is None
    assert "by" not in selection_rule(settings)
    assert by_bin(prepared(settings)[0]) == [(0, 1000), (1, 2048)]


def test_bins_of_asked_lengths_have_a_dataset_id_of_their_own(tmp_path: Path) -> None:
    asked = settled(tmp_path)
    quantiles = settled(tmp_path, "binning.by=quantile")
    assert dataset_id(asked) != dataset_id(quantiles)
    assert selection_rule(asked)["by"] == "asked_length"
    before = quantiles.model_copy(update={"binning": quantiles.binning.model_copy(update={"by": None})})
    assert dataset_id(quantiles) == dataset_id(before)


@pytest.mark.parametrize("kept", ["manifest", "database"])
def test_what_was_prepared_by_quantiles_stays_so(tmp_path: Path, kept: str) -> None:
    before = settled(tmp_path, "binning.by=quantile")
    done, _ = prepared(before)
    if kept == "database":
        db = run_paths(before.output.runs_dir, before.experiment.exp_group_id).db
        db.parent.mkdir(parents=True)
        with closing(connect_for_writing(db)) as conn:
            store_manifest(conn, done.path, dataset_id=done.dataset_id)
        shutil.rmtree(manifest_path(before.output.data_dir, done.dataset_id).parent)
    after = settled(tmp_path)
    again, _ = prepared(after)
    assert (again.dataset_id, again.head.sha256) == (done.dataset_id, done.head.sha256)
    (note,) = tasks_of(after).notes
    assert "was prepared in 5 bins by quantiles and stays so" in note


def test_edges_that_are_given_and_prompts_that_are_cut_shorter_are_binned_as_they_say(tmp_path: Path) -> None:
    assert settled(tmp_path, "binning.edges=[0, 500, 3000]").binning.by is None
    assert settled(tmp_path, "prompt.max_context_tokens=1500").binning.by is None
    assert settled(tmp_path, "prompt.max_context_tokens=2048").binning.by == "asked_length"
    with pytest.raises(ConfigError, match="edges and by exclude each other"):
        settled(tmp_path, "binning.edges=[0, 500]", "binning.by=quantile")


@given(st.lists(st.integers(200, 100_000), min_size=1, max_size=8, unique=True), st.integers(1, 199), st.data())
def test_a_prompt_lies_in_the_bin_of_its_length_where_only_that_fits(
    lengths: list[int], reserve: int, data: st.DataObject
) -> None:
    asked = AskedLengths(tuple(sorted(lengths)), reserve)
    place = data.draw(st.integers(0, len(lengths) - 1))
    shortest = (asked.lengths[place - 1] - reserve if place else 0) + 1
    tokens = data.draw(st.integers(shortest, asked.lengths[place] - reserve))
    assert bin_of(tokens, asked.edges()) == place
    assert asked.of_bins([(shortest, tokens)]) == [asked.lengths[place]]


def test_bins_are_named_by_asked_lengths_only_where_each_is_the_whole_of_one() -> None:
    asked = AskedLengths((1024, 2048), 30)
    assert asked.of_bins([(900, 990), (1900, 2018)]) == [1024, 2048]
    assert asked.of_bins([(900, 1000), (1900, 2018)]) is None  # 1,000 and the answer don't fit into 1,024
    assert asked.of_bins([(900, 950), (960, 990), (1900, 2018)]) is None
    assert asked.of_bins([(900, 2100)]) is None
    assert AskedLengths.of("jsonl", {"lengths": [1024]}, 30) is None
    assert AskedLengths.of("ruler", {"lengths": "many"}, 30) is None
    assert AskedLengths.of("ruler", {}, 30) == AskedLengths((4096,), 30)


@pytest.mark.parametrize(("tokens", "name"), [(1024, "1k"), (131072, "128k"), (1000, "1,000"), (512, "512")])
def test_a_length_is_called_as_people_call_it(tokens: int, name: str) -> None:
    assert length_name(tokens) == name


def test_a_span_is_its_two_ends() -> None:
    assert [span_name(190, 194), span_name(1156, 1171), span_name(980, 980), span_name(982, 981)] == [
        "190–194",
        "1,156–1,171",
        "980",
        "empty",
    ]


def test_data_without_asked_lengths_can_not_be_binned_by_them(tmp_path: Path) -> None:
    kvtext = load_settings(None, ["dataset.name=kvtext", "dataset.task=single", "binning.by=asked_length"], environ={})
    for refuses in (check_data, lambda each: prepare(each, report=print)):
        with pytest.raises(ConfigError, match="the prompts of kvtext are made for no length"):
            refuses(kvtext.model_copy(update={"output": Output(data_dir=str(tmp_path))}))


@pytest.mark.parametrize("n_bins", [2, 5])
def test_a_length_that_is_too_short_for_a_task_is_an_empty_bin_and_said(tmp_path: Path, n_bins: int) -> None:
    lengths = "dataset.params={lengths: [300, 2048], per_length: 3}"
    done, lines = prepared(settled(tmp_path, f"binning.n_bins={n_bins}", lengths, task="cwe"))
    assert by_bin(done) == [(1, 2048)]
    assert [row["n"] for row in done.head.bins] == [0, 3]
    assert "  bin 0: 300, empty (0–180 tokens), 0 of 0" in lines
    assert "300 tokens are too few for cwe: its shortest prompt and the answer take" in "".join(lines)
    assert "this length has no examples" in "".join(lines)
    with pytest.raises(ConfigError, match="300 tokens are too few for cwe"):
        prepared(settled(tmp_path, "dataset.params={lengths: [300], per_length: 3}", task="cwe"))
