"""Plugins: files that a config of the user's own names, and installed packages; what is wrong in one is said, not shown
as a traceback."""

import json
import multiprocessing
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from analyzer import parallel
from analyzer.metrics.fast import row_scorer
from analyzer.metrics.fast.task_metric import task_scores
from analyzer.read import examples
from analyzer.scoring.prepared_golds import prepared_golds
from kvt_async.contract import plugin_files, plugin_registry
from kvt_async.contract.command_line.run_folder import stored_settings
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import check_installed, check_known
from kvt_async.contract.load import dump_yaml, load_settings, settings_of_text
from kvt_async.contract.plugin_registry import Kind
from kvt_async.contract.settings import PluginFile, Settings
from kvt_async.data.prepare import check_data
from tests.analyzer.synthetic import make_db
from tests.worlds import metric_of

WORDS = """
from kvt_async.plugins import metric

@metric("words")
def words(prediction, golds, meta):
    return float(bool(prediction))
"""


@pytest.fixture(autouse=True)
def _nothing_stays_loaded() -> Iterator[None]:
    yield
    plugin_files.load([])


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def settings_with(*paths: Path, more: tuple[str, ...] = ()) -> Settings:
    files = f"plugins=[{', '.join(map(str, paths))}]"
    return plugin_files.with_plugins(load_settings(None, [files, *more], environ={}), SAID.append)


SAID: list[str] = []


def test_a_file_is_run_once_printed_with_its_hash_and_stored_with_it(tmp_path: Path) -> None:
    path = written(tmp_path, WORDS + f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\n")
    digest = sha256(path.read_bytes()).hexdigest()
    SAID.clear()
    settings = settings_with(path)
    settings_with(path)
    assert (tmp_path / "ran").read_text() == "x"
    assert SAID[0] == f"plugin {path}: metric words (SHA-256 {digest})"
    again = settings_of_text(dump_yaml(settings), where="a session")
    assert again.plugins == [PluginFile(path=str(path), sha256=digest)]
    check_known("words", "here")


def test_what_a_file_prints_is_no_part_of_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings_with(written(tmp_path, f"print('hello')\n{WORDS}"))
    assert capsys.readouterr() == ("", "hello\n")


def test_a_config_that_is_stored_in_a_folder_runs_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\n")
    make_db(tmp_path / "kv_transition.sqlite", n_bins=1, n_per_bin=2)
    with sqlite3.connect(tmp_path / "kv_transition.sqlite") as conn:
        conn.execute("DROP TRIGGER sessions_no_update")
        conn.execute("UPDATE sessions SET config_yaml = ?", (f"plugins: [{path}]",))
    settings = stored_settings(tmp_path)
    assert [file.path for file in settings.plugins] == [str(path)]
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ConfigError, match="has no meaning for a folder"):
        stored_settings(tmp_path, [f"plugins=[{path}]"])


def test_no_variable_and_no_dotenv_names_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("KVT__plugins=[evil.py]\n")
    with pytest.raises(ConfigError, match="plugins can't be named by a variable"):
        load_settings(None, environ={})


def test_the_plugins_are_those_of_the_config_in_use(tmp_path: Path) -> None:
    settings_with(written(tmp_path, WORDS))
    settings_with(written(tmp_path, WORDS.replace('"words"', '"other"'), "other.py"))
    assert plugin_registry.names(Kind.METRIC) == ["other"]
    with pytest.raises(ConfigError, match="no metric is called 'words'"):
        check_known("words", "here")


def test_a_file_that_changed_is_run_anew_and_one_that_a_config_pins_must_not_have_changed(tmp_path: Path) -> None:
    path = written(tmp_path, WORDS)
    (before,) = plugin_files.load([PluginFile(path=str(path))])
    written(tmp_path, WORDS.replace("bool(prediction)", "not prediction"))
    (now,) = plugin_files.load([PluginFile(path=str(path))])
    assert before.sha256 != now.sha256
    assert metric_of("words").score("text", [], {}) == 0
    with pytest.raises(ConfigError, match=f"(?s)not the one that was meant.*{before.sha256}.*{now.sha256}"):
        plugin_files.load([PluginFile(path=str(path), sha256=before.sha256)])


BROKEN = {
    "no Python": ("def f(:\n", "mine.py:1", "not valid Python"),
    "no text": ("a = '\0'", "mine.py", "not valid Python"),
    "raises": ("import json\n\njson.loads('{')\n", "mine.py:3", "raised JSONDecodeError"),
    "lacks a library": ("import no_such_library\n", "mine.py:1", "raised ModuleNotFoundError"),
    "leaves": ("raise SystemExit(3)\n", "mine.py", "raised SystemExit: 3"),
    "gives nothing": ("a = 1\n", "mine.py", "gives no metric, no source and no policy"),
    "a name of ours": (WORDS.replace('"words"', '"f1"'), "mine.py", "another metric called f1: one of kvt's own"),
    "a name twice": (WORDS * 2, "mine.py", "another metric called words"),
    "no name": (WORDS.replace('"words"', '"my words"'), "mine.py", "'my words' is no name of a metric"),
    "two arguments": (WORDS.replace(", meta", ""), "mine.py", "the metric words can't be called as a metric is"),
    "no function": (
        "from kvt_async.plugins import metric\nmetric('words')(3)\n",
        "mine.py",
        "int is no function",
    ),
    "asynchronous": (WORDS.replace("def words", "async def words"), "mine.py", "the metric words is asynchronous"),
    "a source of ours": (
        "from kvt_async.plugins import source, SourceTask\n\n"
        "@source('ruler', tasks={'a': SourceTask('b')})\ndef rows(task, path, params): ...\n",
        "mine.py",
        "another source called ruler: one of kvt's own",
    ),
    "a task that is a text": (
        "from kvt_async.plugins import source\n\n@source('s', tasks={'a': 'b'})\ndef rows(task, path, params): ...\n",
        "",
        "the source s: the task a is no SourceTask",
    ),
    "a policy of three": (
        "from kvt_async.plugins import policy\n\n@policy('p')\ndef p(view, params, more): ...\n",
        "mine.py",
        "the policy p can't be called as a policy is",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_in_a_file_is_said_with_its_place_and_leaves_nothing_behind(tmp_path: Path, case: str) -> None:
    text, where, says = BROKEN[case]
    with pytest.raises(ConfigError) as caught:
        settings_with(written(tmp_path, text))
    assert says in str(caught.value)
    assert caught.value.where.endswith(where)
    assert caught.value.do
    assert [plugin_registry.added(kind) for kind in Kind] == [[], [], []]
    assert plugin_files.loaded() == []


def test_a_file_that_is_not_there_or_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, WORDS)
    for files, says in (
        ([tmp_path / "none.py"], "there is no such file"),
        ([tmp_path], "this is a folder, not a file"),
        ([path, path], "is named twice"),
        ([path, written(tmp_path, WORDS, "again.py")], "there is another metric called words"),
    ):
        with pytest.raises(ConfigError, match=says):
            settings_with(*files)


@pytest.mark.parametrize(
    ("returns", "says"),
    [
        ("1.5", "scored 1.5; a score is a number from 0 to 1"),
        ("-0.1", "scored -0.1"),
        ("float('nan')", "scored nan"),
        ("None", "failed: TypeError"),
        ("len(prediction[99])", "failed: IndexError"),
    ],
)
def test_a_score_that_is_none_names_the_answer(tmp_path: Path, returns: str, says: str) -> None:
    settings_with(written(tmp_path, WORDS.replace("float(bool(prediction))", returns)))
    with pytest.raises(ConfigError) as caught:
        metric_of("words").score("the answer", ["gold"], {})
    assert says in str(caught.value)
    assert "'the answer'" in str(caught.value)
    assert "mine.py" in caught.value.where


OPTIONS = """
from kvt_async.plugins import metric

@metric("option", each_gold=True, first_line=True, needs_classes=True, format_ok=lambda text, meta: text.isdigit())
def option(prediction, gold, meta):
    return 0.5 * (prediction == gold) + 0.5 * (meta["all_classes"] == ["7", "8"])
"""


def test_what_the_decorator_was_given_holds_when_columns_are_scored(tmp_path: Path) -> None:
    settings_with(written(tmp_path, OPTIONS))
    frame = pl.DataFrame(
        {
            "said": ["7\nand more", "x"],
            "golds": [["6", "7"], ["8"]],
            "needed_json": ['{"all_classes": ["7", "8"]}', '{"all_classes": []}'],
        }
    )
    scored = task_scores(frame, "option")
    assert scored["score"].to_list() == [1.0, 0.0]
    assert scored["format_ok"].to_list() == [True, False]


NEEDS_META = """
from kvt_async.plugins import metric

@metric("unit", needs_meta=("unit", "exact", "absent"), format_ok=lambda text, meta: set(meta) == {"unit", "exact"})
def unit(prediction, golds, meta):
    return float(prediction == f"{golds[0]} {meta['unit']}" and meta["exact"] is True)
"""


def test_a_metric_gets_the_fields_of_meta_that_it_names_and_no_others(tmp_path: Path) -> None:
    settings_with(written(tmp_path, NEEDS_META))
    meta = json.dumps({"unit": 'a "b"', "exact": True, "more": 1})
    with closing(sqlite3.connect(make_db(tmp_path / "kv.sqlite", n_bins=1, n_per_bin=2))) as conn:
        conn.execute("DROP TRIGGER examples_no_update")
        conn.execute("UPDATE examples SET meta_json = ?", (meta,))
        (dataset_id,) = conn.execute("SELECT dataset_id FROM datasets").fetchone()
        golds = prepared_golds(conn, examples.dataset(conn, dataset_id).scored_by("unit")).head(1)
    said = pl.concat_str(pl.col("golds").list.first(), pl.lit(' a "b"'))
    scored = task_scores(golds.with_columns(said=said), "unit")
    assert scored.select("score", "format_ok").rows() == [(1.0, True)]


@pytest.mark.parametrize("given", ['"unit"', '("a b",)', "(3,)"])
def test_needs_meta_is_a_list_of_names(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match="is no list of fields of meta"):
        settings_with(written(tmp_path, WORDS.replace('"words"', f'"words", needs_meta={given}')))


def test_a_metric_that_lacks_its_package_is_refused_before_a_request(tmp_path: Path) -> None:
    settings_with(written(tmp_path, WORDS.replace('"words"', '"words", packages=["no_such_library"]')))
    with pytest.raises(ConfigError, match="the metric words needs the package no_such_library"):
        check_installed("words", "here")


def test_a_near_miss_is_met_with_the_name_of_a_plugin(tmp_path: Path) -> None:
    path = written(tmp_path, WORDS + SOURCE)
    for override, says in (
        ("dataset={name: poemz, task: rhymes}", "Did you mean poems?"),
        ("dataset={name: poems, task: rhyms}", "Did you mean rhymes?"),
        ("dataset={name: poems, task: rhymes, params: {lins: 2}}", "Did you mean lines?"),
        ("dataset={name: poems, task: rhymes, params: {metric: wrds}}", "Did you mean words?"),
        ("analysis.metric=wrds", "Did you mean words?"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_data(settings_with(path, more=("tokenizer.name=approx:chars/4", "dataset.path=null", override)))
        assert says in str(caught.value), override


SOURCE = """
from kvt_async.plugins import SourceTask, source

@source("poems", tasks={"rhymes": SourceTask("the word that rhymes", metric="words")}, params=("lines",))
def poems(task, path, params):
    for n in range(params.get("lines", 3)):
        yield {"context": f"line {n}", "question": "what rhymes?", "answers": ["moon"]}
"""


def test_running_a_source_loads_no_analysis_and_scoring_by_a_metric_no_network(tmp_path: Path) -> None:
    from tests.contract.test_imports import loaded_after

    path = written(tmp_path, WORDS + SOURCE)
    loads = f"from kvt_async.contract import plugin_files; plugin_files.load_again([({str(path)!r}, {sha(path)!r})])"
    runner = loaded_after(f"{loads}\nimport kvt_async.data.sources, kvt_async.plugins")
    assert not runner & {"polars", "numpy", "altair", "scipy"}
    analysis = loaded_after(f"{loads}\nfrom analyzer.metrics import find; find('words')")
    assert not analysis & {"aiohttp", "aiosqlite", "uvloop"}


def sha(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_a_plugin_is_found_by_what_unpickles_its_classes(tmp_path: Path) -> None:
    """Dataclasses look their module up while they are made."""
    text = "from dataclasses import dataclass\n\n@dataclass(frozen=True, slots=True)\nclass A:\n    b: int = 3\n"
    settings_with(written(tmp_path, text + WORDS.replace("float(bool(prediction))", "float(A().b == 3)")))
    assert metric_of("words").score("", [], {}) == 1
    assert any(name.startswith("kvt_plugin_") for name in sys.modules)


def test_processes_of_the_analysis_know_the_plugins_of_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_with(written(tmp_path, WORDS))
    monkeypatch.setattr(row_scorer, "WORTH_IT_S", 0.0)
    monkeypatch.setattr(row_scorer, "cores", lambda: 2)
    answers = [(str(i) if i % 3 else "", ("a",), "") for i in range(row_scorer.TRIAL + 700)]
    pool = row_scorer._pool(tuple(plugin_files.loaded()))
    assert {score for score, _ in pool.submit(row_scorer.score_slice, "words", answers[:9]).result()} == {0.0, 1.0}
    assert row_scorer.score_rows("words", answers) == row_scorer.score_slice("words", answers)
    pool.shutdown()
    row_scorer._pool.cache_clear()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, parallel.begin, (plugin_files.loaded(),)) as workers:
        assert workers.submit(check_known, "words", "here").result() is None
