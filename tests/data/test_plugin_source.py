"""A data source of a plugin: its rows are checked as those of a file are, and what is wrong in it is said."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvt_async.contract import plugin_files
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import PluginFile, Settings
from kvt_async.data.prepare import check_data, prepare
from kvt_async.data.sources import list_tasks, open_source
from kvt_async.data.tasks import tasks_of
from tests.worlds import settings_of

PLUGIN = """
from kvt_async.plugins import SourceTask, source

TASKS = {"easy": SourceTask("the easy one", metric="em", max_new_tokens=5), "hard": SourceTask("the hard one")}

@source("mine", tasks=TASKS, params=("rows",))
def mine(task, path, params):
    for n in range(params.get("rows", 4)):
        yield ROW
"""
ROW = '{"example_id": f"{task}{n}", "question": "q?", "context": "words " * n, "answers": ["a"], "meta": {"n": n}}'


@pytest.fixture(autouse=True)
def _nothing_stays_loaded() -> Iterator[None]:
    yield
    plugin_files.load([])


def settings(folder: Path, *overrides: str, text: str = PLUGIN, row: str = ROW) -> Settings:
    """A config of the plugin's source, the plugin loaded."""
    file = folder / "mine.py"
    file.write_text(text.replace("ROW", row))
    plugin_files.load([PluginFile(path=str(file))])
    own = ("tokenizer.name=approx:chars/4", "binning.n_bins=1", f"output.data_dir={folder}/data")
    return settings_of("dataset={name: mine, task: easy}", *own, *overrides)


def test_its_rows_become_a_manifest_under_the_tasks_own_metric_and_length(tmp_path: Path) -> None:
    config = settings(tmp_path, "dataset.params={rows: 3}")
    (task,) = tasks_of(config).tasks
    assert task.settings.decoding.max_tokens == 5
    done = prepare(task.settings, report=lambda _: None)
    manifest = json.loads(done.path.read_text())
    assert (done.head.name, done.head.task, done.head.metric, done.n_entries) == ("mine", "easy", "em", 3)
    assert [example["meta"]["n"] for example in manifest["examples"]] == [0, 1, 2]


def test_its_rows_may_be_conversations(tmp_path: Path) -> None:
    row = '{"example_id": f"{task}{n}", "conversation": [{"question": f"q{k}?", "answers": ["a"]} for k in range(2)]}'
    (task,) = tasks_of(settings(tmp_path, "dataset.params={rows: 2}", row=row)).tasks
    done = prepare(task.settings, report=lambda _: None)
    assert (done.head.n_entries, done.head.bins[0]["conversations"]) == (4, 2)


def test_short_forms_and_lists_know_its_tasks(tmp_path: Path) -> None:
    config = settings(tmp_path, "dataset.task=all")
    assert [task.name for task in tasks_of(config).tasks] == ["easy", "hard"]
    assert list_tasks("mine", config) == [("easy", "the easy one"), ("hard", "the hard one")]


def test_another_metric_is_a_parameter_of_every_source(tmp_path: Path) -> None:
    assert open_source(settings(tmp_path, "dataset.params={metric: squad_f1}")).metric == "squad_f1"
    with pytest.raises(ConfigError, match="no metric is called 'squad'"):
        check_data(settings(tmp_path, "dataset.params={metric: squad}"))


def test_its_revision_is_the_files_of_plugin_and_data_unless_it_says_otherwise(tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("1")
    first = open_source(settings(tmp_path, f"dataset.path={data}")).revision
    data.write_text("2")
    assert open_source(settings(tmp_path, f"dataset.path={data}")).revision != first
    changed = open_source(settings(tmp_path, f"dataset.path={data}", text=f"# a change\n{PLUGIN}")).revision
    assert changed.startswith("mine sha256:")
    pinned = PLUGIN.replace('("rows",)', '("rows",), revision="7"')
    assert open_source(settings(tmp_path, text=pinned)).revision == "mine 7"


@pytest.mark.parametrize(
    ("row", "where", "says"),
    [
        ("1 // 0", "mine.py:9", "the source mine of {} failed: ZeroDivisionError"),
        ("[1]", "mine easy #0", "gave list, not a dict"),
        ('{"question": "q"}', "mine easy #0", "the field 'context' is missing"),
        ('{"question": "q", "context": 3, "answers": []}', "mine easy #0", "the field 'context' must be a string"),
        ('{"question": "q", "context": {1j}, "answers": []}', "mine easy #0", "gave what JSON has no word for"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, row: str, where: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(open_source(settings(tmp_path, row=row)).rows())
    assert caught.value.where.endswith(where)
    assert says.format(tmp_path / "mine.py") in str(caught.value)


def test_a_source_that_gives_no_rows_at_all_is_no_traceback(tmp_path: Path) -> None:
    text = PLUGIN.replace('    for n in range(params.get("rows", 4)):\n        yield ROW', "    return None")
    with pytest.raises(ConfigError, match="'NoneType' object is not iterable"):
        list(open_source(settings(tmp_path, text=text)).rows())
