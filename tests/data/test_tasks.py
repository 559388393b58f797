"""`tasks` and the short forms of `dataset.task`: which tasks a config comes to, each with settings of its own."""

from pathlib import Path

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import dump_yaml, load_settings, settings_of_text
from kvt_async.data.identity import dataset_id
from kvt_async.data.sources import ruler
from kvt_async.data.tasks import Task, Tasks, tasks_of
from kvt_async.validate import dataset_tasks, validate

MADE = [key for key in ruler.TASKS if not key.startswith("qa_")]
SQUAD = '{"data": []}'
HOTPOT = "[]"


def tasks(*overrides: str) -> Tasks:
    return tasks_of(load_settings(None, list(overrides), environ={}))


def names(found: Tasks) -> list[str]:
    return [task.name for task in found.tasks]


def test_a_config_that_names_one_task_is_that_task_as_it_stands() -> None:
    settings = load_settings(None, ["dataset.name=kvtext", "dataset.task=single", "decoding.max_tokens=8"], environ={})
    assert tasks_of(settings) == Tasks((Task("single", settings),))


def test_all_of_ruler_is_what_can_be_made_here_and_what_needs_a_file_is_named() -> None:
    found = tasks("dataset.name=ruler", "dataset.task=all")
    assert names(found) == MADE
    assert len(MADE) == 11
    assert [note for note in found.notes if note.startswith("qa_")] == [
        "qa_1 is left out: it needs a file of questions (dataset.path: dev-v2.0.json)",
        "qa_2 is left out: it needs a file of questions (dataset.path: hotpot_dev_distractor_v1.json)",
    ]


def test_each_task_of_a_short_form_is_the_data_set_that_it_is_alone() -> None:
    for task in tasks("dataset.name=ruler", "dataset.task=all").tasks:
        (alone,) = tasks("dataset.name=ruler", f"dataset.task={task.name}").tasks
        assert dataset_id(task.settings) == dataset_id(alone.settings)
        assert task.settings == alone.settings


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (
            "niah_multi*",
            ["niah_multikey_1", "niah_multikey_2", "niah_multikey_3", "niah_multivalue", "niah_multiquery"],
        ),
        ("niah_single_[12]", ["niah_single_1", "niah_single_2"]),
        ("[fwe, vt]", ["fwe", "vt"]),
        ("[vt, '*we']", ["vt", "cwe", "fwe"]),
        ("['*we', cwe]", ["cwe", "fwe"]),
    ],
)
def test_globs_and_lists_name_several_tasks_each_once(task: str, expected: list[str]) -> None:
    assert names(tasks("dataset.name=ruler", f"dataset.task={task}")) == expected


def test_files_in_the_published_formats_make_all_thirteen(tmp_path: Path) -> None:
    (tmp_path / "dev-v2.0.json").write_text(SQUAD, encoding="utf-8")
    (tmp_path / "hotpot_dev_distractor_v1.json").write_text(HOTPOT, encoding="utf-8")
    found = tasks("dataset.name=ruler", "dataset.task=all", f"dataset.path={tmp_path}")
    assert (names(found), [n for n in found.notes if "left out" in n]) == (list(ruler.TASKS), [])
    paths = {task.name: task.settings.dataset.path for task in found.tasks}
    assert paths["vt"] is None
    assert paths["qa_2"] == str(tmp_path / "hotpot_dev_distractor_v1.json")
    by_entry = tasks(
        "dataset.name=ruler",
        f"tasks=[{{dataset: {{task: all}}}}, {{dataset: {{task: qa_1, path: '{tmp_path}/dev-v2.0.json'}}}},"
        f" {{dataset: {{task: qa_2, path: '{tmp_path}/hotpot_dev_distractor_v1.json'}}}}]",
    )
    assert {task.name: task.settings for task in by_entry.tasks} == {task.name: task.settings for task in found.tasks}


@pytest.mark.parametrize(("content", "task", "missing"), [(SQUAD, "qa_1", "qa_2"), (HOTPOT, "qa_2", "qa_1")])
def test_one_file_serves_the_task_whose_format_it_has(tmp_path: Path, content: str, task: str, missing: str) -> None:
    path = tmp_path / "questions.json"
    path.write_text(content, encoding="utf-8")
    found = tasks("dataset.name=ruler", "dataset.task=all", f"dataset.path={path}")
    assert task in names(found)
    assert missing not in names(found)


def test_an_entry_lies_over_the_sections_and_one_with_its_own_data_set_replaces_it_whole() -> None:
    found = tasks(
        "dataset={name: ruler, params: {lengths: [1024], per_length: 7}}",
        "binning.n_per_bin=9",
        "decoding.extra_body={top_k: 1}",
        "tasks=[{dataset: {task: vt, params: {seed: 3}}, binning: {n_bins: 2}, decoding: {extra_body: {top_p: 1}}},"
        " {name: mine, dataset: {name: kvtext, task: single}, prompt: {system: hi}, sampling: {seed: 5}}]",
    )
    vt, mine = (task.settings for task in found.tasks)
    assert names(found) == ["vt", "mine"]
    assert vt.dataset.params == {"lengths": [1024], "per_length": 7, "seed": 3}
    assert (vt.binning.n_bins, vt.binning.n_per_bin, vt.decoding.extra_body) == (2, 9, {"top_k": 1, "top_p": 1})
    assert (mine.dataset.params, mine.prompt.system, mine.sampling.seed, mine.binning.n_bins) == ({}, "hi", 5, 5)
    assert [task.settings.tasks for task in found.tasks] == [[], []]


@pytest.mark.parametrize(
    ("entries", "where", "what"),
    [
        ("[{dataset: {task: vt}}, {dataset: {task: vt, params: {seed: 1}}}]", "tasks.1", "two tasks are called vt"),
        ("[{dataset: {task: vt}}, {name: VT, dataset: {task: cwe}}]", "tasks.1", "two tasks are called VT"),
        ("[{dataset: {task: vt}}, {name: w, dataset: {task: vt}}]", "tasks.1", "the same data set"),
        ("[{name: r, dataset: {task: '*we'}}]", "tasks.0", "given to 2 tasks"),
        ("[{dataset: {name: kvtext}}]", "tasks.0", "kvtext needs the name of its task"),
        ("[{dataset: {task: x*}}]", "tasks.0", "no task of ruler matches"),
        ("[{dataset: {task: qa_*}}]", "tasks.0", "no task of ruler can be made"),
        ("[{dataset: {task: vt}, binning: {n_bin: 3}}]", "", "Did you mean tasks.binning.n_bins"),
        ("[{dataset: {task: '*we'}, check: [{name: a, kind: no_failures}]}]", "tasks.0.check", "about no one task"),
        ("[{binning: {n_bins: 2}, check: [{name: a, kind: no_failures}]}]", "tasks.0.check", "about no one task"),
        ("[{name: ../up, dataset: {task: vt}}]", "", "tasks.0.name"),
        ("[{dataset: {task: vt}, binning: {n_bins: 0}}]", "", "tasks.0.binning.n_bins"),
    ],
)
def test_what_is_wrong_with_an_entry_names_it(entries: str, where: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tasks("dataset.name=ruler", "dataset.task=vt", f"tasks={entries}")
    assert what in str(caught.value)
    assert caught.value.where.startswith(where)


def test_own_data_has_no_task_but_the_one_it_is_given() -> None:
    with pytest.raises(ConfigError, match="jsonl needs the name of its task"):
        tasks("dataset.name=jsonl", "dataset.path=mine.jsonl")
    (task,) = tasks("dataset.name=jsonl", "dataset.path=mine.jsonl", "dataset.task=all").tasks
    assert task.name == "all"


def test_a_folder_of_jsonl_files_is_one_task_a_file(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n", encoding="utf-8")
    found = tasks("dataset.name=jsonl", f"dataset.path={tmp_path}", "dataset.task=all")
    assert [(task.name, task.settings.dataset.path) for task in found.tasks] == [
        ("a", f"{tmp_path}/a.jsonl"),
        ("b", f"{tmp_path}/b.jsonl"),
    ]


def test_entries_survive_the_stored_config() -> None:
    settings = load_settings(
        None, ["tasks=[{name: x, dataset: {name: ruler, task: vt}, binning: {n_bins: 2}}]", "dataset.task=[a, b]"],
        environ={},
    )  # fmt: skip
    assert settings_of_text(dump_yaml(settings), where="a session") == settings


def test_tasks_are_replaced_and_not_merged_and_may_be_null(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("dataset: {name: ruler}\ntasks: [{dataset: {task: vt}}, {dataset: {task: cwe}}]\n", "utf-8")
    replaced = load_settings(config, ["tasks=[{dataset: {task: fwe}}]"], environ={})
    assert names(tasks_of(replaced)) == ["fwe"]
    assert load_settings(config, ["tasks=null"], environ={}).tasks == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["dataset.name=ruler", "dataset.task=vt"], 30),
        (["dataset.name=ruler", "dataset.task=qa_1", "dataset.path=x.json"], 32),
        (["dataset.name=longbench", "dataset.task=gov_report"], 512),
        (["dataset.name=longbench_e", "dataset.task=trec"], 64),
        (["dataset.name=kvtext", "dataset.task=single"], 256),
        (["dataset.name=jsonl", "dataset.task=own", "dataset.path=x.jsonl"], 256),
        (["dataset.name=ruler", "dataset.task=no_such"], 256),  # its source says what is wrong with it
    ],
)
def test_an_answer_is_as_long_as_the_task_is_published_with(overrides: list[str], expected: int) -> None:
    found = tasks(*overrides)
    assert (found.tasks[0].settings.decoding.max_tokens, found.notes) == (expected, ())


def test_another_value_than_the_published_one_is_kept_and_said() -> None:
    found = tasks("dataset.name=ruler", "dataset.task=[vt, niah_single_1]", "decoding.max_tokens=128")
    assert [task.settings.decoding.max_tokens for task in found.tasks] == [128, 128]
    assert found.notes == ("vt: decoding.max_tokens 128, the task's own is 30",)
    trec = tasks("dataset.task=trec", "dataset.params={metric: classification_fixed}")
    assert trec.notes == (
        "trec: dataset.params.metric classification_fixed, the task's own is classification_first_line",
    )


SAME_QUESTION = "decoding.samples 4 at temperature 0: the same question 4 times; only the server's own noise can differ"


@pytest.mark.parametrize(
    ("overrides", "notes"),
    [
        ([], (SAME_QUESTION,)),
        (["decoding.samples=1"], ()),
        (["decoding.temperature=0.7"], ()),
        (["decoding.temperature=null"], ()),  # the server's own
        (["decoding.extra_body={temperature: 0.7}"], ()),
        (["decoding.temperature=0.7", "decoding.extra_body={temperature: 0}"], (SAME_QUESTION,)),
        (["tasks=[{dataset: {task: vt}}, {dataset: {task: cwe}}]"], (SAME_QUESTION,)),
        (
            ["tasks=[{dataset: {task: vt}}, {dataset: {task: cwe}, decoding: {temperature: 0.7}}]"],
            (f"vt: {SAME_QUESTION}",),
        ),
    ],
)
def test_several_answers_of_which_none_is_drawn_are_said_once(
    tmp_path: Path, overrides: list[str], notes: tuple[str, ...]
) -> None:
    common = ["tokenizer.name=approx:chars/4", f"output.data_dir={tmp_path}", f"output.runs_dir={tmp_path}"]
    asked = ["dataset.name=ruler", "dataset.task=[vt, cwe]", "decoding.samples=4", *common, *overrides]
    assert tasks(*asked).notes == notes
    told = validate(load_settings(None, asked, environ={})).get("notes", [])
    assert tuple(note for note in told if "decoding.samples" in note) == notes


def test_settled_settings_are_settled_once() -> None:
    (task,) = tasks("dataset.name=ruler", "dataset.task=vt").tasks
    assert tasks_of(task.settings) == Tasks((task,))


def test_validate_goes_over_every_task_and_names_the_one_that_is_wrong(tmp_path: Path) -> None:
    common = ["tokenizer.name=approx:chars/4", f"output.data_dir={tmp_path}", f"output.runs_dir={tmp_path}"]
    suite = load_settings(None, ["dataset.name=ruler", "dataset.task=[vt, cwe]", *common], environ={})
    facts = validate(suite)
    assert list(facts["dataset_ids"]) == ["vt", "cwe"]
    wrong = load_settings(
        None, ["dataset.name=ruler", "tasks=[{dataset: {task: vt}}, {dataset: {task: cw}}]", *common], environ={}
    )
    with pytest.raises(ConfigError, match=r"task cw: dataset\.task: ruler has no task 'cw'"):
        validate(wrong)
    gone = load_settings(
        None, ["dataset.name=ruler", "tasks=[{dataset: {task: vt}}, {dataset: {task: qa_1, path: gone}}]", *common],
        environ={},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"task qa_1: dataset\.path gone: there is no such file"):
        validate(gone)


def test_the_list_of_rulers_tasks_says_which_need_a_file(tmp_path: Path) -> None:
    says = dict(dataset_tasks("ruler", None))
    assert [key for key, text in says.items() if text.endswith("; made here")] == MADE
    assert says["vt"].endswith("string_match_all, 30 tokens; made here")
    assert "needs a file of questions (dataset.path: dev-v2.0.json)" in says["qa_1"]
    (tmp_path / "dev-v2.0.json").write_text(SQUAD, encoding="utf-8")
    assert dict(dataset_tasks("ruler", str(tmp_path)))["qa_1"].endswith(f"from {tmp_path}/dev-v2.0.json")


def test_the_environment_may_hold_entries_and_their_secrets_stay_known(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = "[{dataset: {name: kvtext, task: single}, decoding: {extra_body: {key: '${MY_API_TOKEN}'}}}]"
    monkeypatch.setenv("KVT__tasks", entries)
    monkeypatch.setenv("MY_API_TOKEN", "a-secret-of-some-length")
    settings = load_settings(None)
    (task,) = tasks_of(settings).tasks
    assert task.settings.decoding.extra_body == {"key": "a-secret-of-some-length"}
    assert "a-secret-of-some-length" not in task.settings.secrets.text("said a-secret-of-some-length")
    assert "a-secret-of-some-length" not in dump_yaml(settings) + dump_yaml(task.settings)
