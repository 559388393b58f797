"""All of RULER as one group: what is sent of each task, and what is said before anything is made."""

from collections import Counter
from pathlib import Path

import pytest

from kvt_async.contract.command_line.run_folder import stored_settings
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from kvt_async.data.sources.ruler import PUBLISHED, TASKS
from kvt_async.sweep.sweep import SweepOptions, prepare_group, run
from kvt_async.validate import resolved_paths
from tests.data.test_ruler import hotpot, squad
from tests.servers.openai_server import Script, serving
from tests.worlds import query, settings_of

FILES = ("dev-v2.0.json", "hotpot_dev_distractor_v1.json")


def ruler(folder: Path, url: str, *overrides: str) -> Settings:
    return settings_of(
        *("experiment.exp_group_id=g", "dataset.name=ruler", "dataset.task=all", "tokenizer.name=approx:chars/4"),
        *("dataset.params={lengths: [1024, 2048], per_length: 1}", "model.name=reference", f"engine.base_url={url}"),
        *(f"output.runs_dir={folder}/runs", f"output.data_dir={folder}/data", "kv.budgets=[1.0, 0.5]"),
        *("kv.control_repeats=0", "analysis.guard=0.9", *overrides),
    )


async def test_thirteen_tasks_are_sent_each_with_its_published_length_of_answer(tmp_path: Path) -> None:
    squad(tmp_path / FILES[0])
    hotpot(tmp_path / FILES[1])
    async with serving(Script()) as (server, url):
        settings = ruler(tmp_path, url, f"dataset.path={tmp_path}")
        report = await run(settings, options=SweepOptions(quiet=True))
    assert (report.exit_code, report.responses, report.pending) == (0, 13 * 2 * 2, 0)
    stored = dict(query(settings, "SELECT task, contract_json ->> '$.\"decoding.max_tokens\"' FROM task_contracts"))
    assert stored == {key: PUBLISHED[key].max_new_tokens for key in TASKS}
    sent = Counter(body["max_tokens"] for body in server.bodies)
    assert {n: sent[n] for n in (30, 50, 120)} == {30: 4, 50: 4, 120: 4}
    for name in FILES:
        (tmp_path / name).unlink()
    resolved = resolved_paths(stored_settings(tmp_path / "runs/g"), of_database=True)
    assert sorted(resolved["dataset_ids"]) == sorted(TASKS), "a stored config's files are not looked at"
    assert query(settings, "SELECT DISTINCT n FROM (SELECT count(*) n FROM bins GROUP BY dataset_id)") == [(2,)]


def test_what_is_wrong_with_one_task_is_said_by_its_name_before_any_is_made(tmp_path: Path) -> None:
    short = "tasks=[{dataset: {task: vt}}, {name: words, dataset: {task: cwe, params: {lengths: []}}}]"
    with pytest.raises(ConfigError, match=r"task words: .*lengths must be a list of token counts"):
        prepare_group(ruler(tmp_path, "http://127.0.0.1:9/v1", short), quiet=True)
    assert list((tmp_path / "data").rglob("manifest.json")) == []


def test_what_only_the_data_can_tell_names_the_task_too(tmp_path: Path) -> None:
    short = "tasks=[{dataset: {task: vt}}, {dataset: {task: niah_single_1, params: {lengths: [140]}}}]"
    with pytest.raises(ConfigError, match=r"task niah_single_1: .*140 tokens are too few"):
        prepare_group(ruler(tmp_path, "http://127.0.0.1:9/v1", short), quiet=True)


def test_what_is_left_out_is_said_by_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = prepare_group(ruler(tmp_path, "http://127.0.0.1:9/v1", "dataset.params={lengths: [1024], per_length: 1}"))
    assert [task["task"] for task in answer["tasks"]] == [key for key in TASKS if not key.startswith("qa_")]
    out = "".join(capsys.readouterr())
    assert "qa_1 is left out: it needs a file of questions (dataset.path: dev-v2.0.json)" in out
    assert "qa_2 is left out" in out
    assert out.count("over chat the published answer prefix is not sent") == 1, "what holds for all is said once"
