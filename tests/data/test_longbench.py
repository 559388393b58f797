"""LongBench: published prompts to the letter, rows from a local archive or folder, exact task names."""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from analyzer import metrics
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import render
from kvt_async.data.manifest import read_items
from kvt_async.data.prepare import check_data, prepare
from kvt_async.data.sources import list_tasks, open_source
from kvt_async.data.sources.longbench_tasks import E_TASKS, TASKS
from kvt_async.data.sources.ruler_tasks import TASKS as RULER
from tests.data.helpers import longbench_row, longbench_zip, settings, write_lines

# SHA-256 (first 16 digits) of each task's entry in the published config/dataset2prompt.json
PUBLISHED_PROMPTS = {
    "narrativeqa": "aada7ed24b06abac",
    "qasper": "0fbdd123fe7f83d6",
    "multifieldqa_en": "20b4666a2de8a1f7",
    "multifieldqa_zh": "344b3a4e557cd547",
    "hotpotqa": "9ec4ae308865bd0c",
    "2wikimqa": "9ec4ae308865bd0c",
    "musique": "9ec4ae308865bd0c",
    "dureader": "ae53329f51b17908",
    "gov_report": "91c25d585b189ced",
    "qmsum": "dca23b678fe0183b",
    "multi_news": "2af3f28c40b902e6",
    "vcsum": "3e5d8241bc9b512e",
    "trec": "0eff8bebdba99d91",
    "triviaqa": "00a802e6377e72fc",
    "samsum": "a68d884234907eef",
    "lsht": "f3edabdf7fae53d6",
    "passage_count": "986550b6c61009c6",
    "passage_retrieval_en": "39b96b7fa52bdd2a",
    "passage_retrieval_zh": "c1e2346e245eb365",
    "lcc": "6a1f24cf0bb83cd9",
    "repobench-p": "ee9ec182ea5ffeb7",
}


def test_all_21_prompts_are_the_published_ones() -> None:
    ours = {key: task.template.replace("{question}", "{input}") for key, task in TASKS.items()}
    assert {key: sha256(text.encode()).hexdigest()[:16] for key, text in ours.items()} == PUBLISHED_PROMPTS


@pytest.mark.parametrize("key", list(TASKS))
def test_a_rendered_prompt_is_the_published_template_filled_in(key: str) -> None:
    context, question = "Some {context} and {question} in braces. " * 3, "Who {input}?"
    published = TASKS[key].template.replace("{question}", "{input}")
    before, after = published.split("{context}")
    messages, _ = render(TASKS[key].template, context, question)
    assert messages == [{"role": "user", "content": before + context + after.replace("{input}", question)}]


def test_the_table_has_the_published_columns() -> None:
    assert [key for key, task in TASKS.items() if task.first_line_only] == ["trec", "triviaqa", "samsum", "lsht"]
    exempt = {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}
    assert {key for key, task in TASKS.items() if not task.chat_template} == exempt
    lengths = {n: {key for key, task in TASKS.items() if task.max_new_tokens == n} for n in (32, 64, 128, 512)}
    assert lengths[512] == {"gov_report", "qmsum", "multi_news", "vcsum"}
    assert lengths[128] == {"narrativeqa", "qasper", "dureader", "samsum"}
    assert lengths[64] == {"multifieldqa_en", "multifieldqa_zh", "trec", "lsht", "lcc", "repobench-p"}
    assert {task.metric for task in TASKS.values()} == {
        "qa_f1", "qa_f1_zh", "rouge", "rouge_zh", "classification", "retrieval", "retrieval_zh", "count", "code_sim",
    }  # fmt: skip
    assert len(E_TASKS) == 13


def test_the_analyzer_knows_every_tasks_metric() -> None:
    names = {task.scored_by for task in TASKS.values()} | {task.metric for task in RULER.values()}
    assert {"qa_f1_first_line", "rouge_first_line", "classification_first_line"} < names
    for name in names:
        assert metrics.find(name) is not None


def test_an_archive_gives_canonical_examples(tmp_path: Path) -> None:
    rows = [longbench_row(0), longbench_row(1, all_classes=["a", "b"], language="zh", input="谁？")]
    path = longbench_zip(tmp_path / "data.zip", {"narrativeqa": rows, "trec": []})
    source = open_source(settings(tmp_path, "dataset.task=narrativeqa", f"dataset.path={path}"))
    first, second = (row.example for row in source.rows())
    assert (first.example_id, first.question, first.answers) == (
        rows[0]["_id"],
        rows[0]["input"],
        ("Ada", "Ada Lovelace"),
    )
    assert second.question == "谁？"
    assert second.meta == {key: rows[1][key] for key in ("length", "dataset", "language", "all_classes", "_id")}
    assert source.revision == f"sha256:{sha256(path.read_bytes()).hexdigest()}"
    assert (source.metric, source.template, source.max_new_tokens) == ("qa_f1", TASKS["narrativeqa"].template, 128)


def test_a_folder_gives_the_same_rows_with_or_without_data_inside(tmp_path: Path) -> None:
    rows = [longbench_row(0), longbench_row(1)]
    write_lines(tmp_path / "a" / "data" / "qasper.jsonl", rows)
    write_lines(tmp_path / "b" / "qasper.jsonl", rows)
    sources = [open_source(settings(tmp_path, "dataset.task=qasper", f"dataset.path={tmp_path}/{d}")) for d in "ab"]
    one, two = ([row.example for row in source.rows()] for source in sources)
    assert one == two
    assert sources[0].revision == sources[1].revision


def test_longbench_e_reads_its_own_files_and_names_the_bucket_by_words(tmp_path: Path) -> None:
    rows = [longbench_row(i, length=length) for i, length in enumerate((3999, 4000, 7999, 8000))]
    path = longbench_zip(tmp_path / "data.zip", {"qasper_e": rows})
    source = open_source(settings(tmp_path, "dataset.name=longbench_e", "dataset.task=qasper", f"dataset.path={path}"))
    assert [row.example.meta["length_bucket"] for row in source.rows()] == ["0-4k", "4-8k", "4-8k", "8k+"]


def test_a_published_id_that_comes_twice_stays_usable(tmp_path: Path) -> None:
    path = longbench_zip(tmp_path / "data.zip", {"qasper": [longbench_row(0), longbench_row(0, input="other")]})
    source = open_source(settings(tmp_path, "dataset.task=qasper", f"dataset.path={path}"))
    assert [row.example.example_id[-3:] for row in source.rows()] == ["000", "0#2"]


@pytest.mark.parametrize(
    ("name", "task", "advice"),
    [
        ("longbench", "NarrativeQA", "Did you mean narrativeqa?"),
        ("longbench", "repobench_p", "Did you mean repobench-p?"),
        ("longbench", "qasper_e", "Did you mean qasper?"),
        ("longbench_e", "narrativeqa", "LongBench-E does not include it"),
    ],
)
def test_task_names_are_exact_and_a_near_miss_is_suggested(tmp_path: Path, name: str, task: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no task") as caught:
        check_data(settings(tmp_path, f"dataset.name={name}", f"dataset.task={task}"))
    assert advice in caught.value.do
    assert caught.value.where == "dataset.task"


def test_what_is_wrong_with_an_archive_is_said(tmp_path: Path) -> None:
    path = longbench_zip(tmp_path / "data.zip", {"narrativeqa_e": [longbench_row(0)]})
    with pytest.raises(ConfigError, match=r"holds no data/narrativeqa\.jsonl") as caught:
        open_source(settings(tmp_path, f"dataset.path={path}"))
    assert "narrativeqa_e.jsonl" in caught.value.do
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        open_source(settings(tmp_path, "dataset.path=/nowhere/data.zip"))
    (tmp_path / "not.zip").write_text("x")
    with pytest.raises(ConfigError, match="neither a folder nor a zip"):
        open_source(settings(tmp_path, f"dataset.path={tmp_path}/not.zip"))
    broken = longbench_zip(tmp_path / "broken.zip", {"narrativeqa": [{"question": "q", "context": "c", "answers": []}]})
    with pytest.raises(ConfigError, match="the field 'input' is missing") as caught:
        list(open_source(settings(tmp_path, f"dataset.path={broken}")).rows())
    assert caught.value.where == f"{broken}/data/narrativeqa.jsonl:1"


def test_without_path_and_hub_the_error_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="could not be fetched") as caught:
        open_source(settings(tmp_path))
    assert "dataset.path" in caught.value.do


def test_an_archive_in_the_raw_cache_is_used_without_the_hub(tmp_path: Path) -> None:
    revision = "5e628be450b7e67fb7ae6e201bd6d8f7056f7672"
    folder = tmp_path / "data" / "raw" / "longbench" / revision
    folder.mkdir(parents=True)
    path = longbench_zip(folder / "data.zip", {"narrativeqa": [longbench_row(0)]})
    source = open_source(settings(tmp_path))
    assert source.revision == f"{revision} sha256:{sha256(path.read_bytes()).hexdigest()}"
    assert len(list(source.rows())) == 1


def test_tasks_are_listed_from_the_archive(tmp_path: Path) -> None:
    path = longbench_zip(tmp_path / "data.zip", {"trec": [], "qasper": [], "qasper_e": []})
    said: list[str] = []
    config = settings(tmp_path, f"dataset.path={path}")
    assert [key for key, _ in list_tasks("longbench", config, report=said.append)] == ["qasper", "trec"]
    assert [key for key, _ in list_tasks("longbench_e", config, report=said.append)] == ["qasper"]
    assert said == [f"from {path}"] * 2


def test_where_the_list_cannot_be_confirmed_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said: list[str] = []
    tasks = list_tasks("longbench", settings(tmp_path), report=said.append)
    assert [key for key, _ in tasks] == list(TASKS)
    assert "not confirmed" in said[0]


def test_a_byte_order_mark_is_no_text_in_a_folder_either(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    line = json.dumps(longbench_row(0), ensure_ascii=False).encode()
    (tmp_path / "data" / "hotpotqa.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\n\n" + line + b"\n")
    source = open_source(
        settings(tmp_path, "dataset.name=longbench", "dataset.task=hotpotqa", f"dataset.path={tmp_path}")
    )
    assert [row.where.rpartition(":")[2] for row in source.rows()] == ["1", "3"]


@pytest.mark.parametrize("changes", [{"input": 3}, {"answers": 7}, {"context": None}])
def test_a_row_that_does_not_fit_is_told_longbenchs_own_shape(tmp_path: Path, changes: dict[str, Any]) -> None:
    archive = longbench_zip(tmp_path / "data.zip", {"hotpotqa": [longbench_row(0, **changes)]})
    source = open_source(
        settings(tmp_path, "dataset.name=longbench", "dataset.task=hotpotqa", f"dataset.path={archive}")
    )
    with pytest.raises(ConfigError) as caught:
        list(source.rows())
    assert '"input": "..."' in (caught.value.do or "")
    assert '"question"' not in (caught.value.do or "")


def test_prepared_prompts_carry_what_scoring_needs(tmp_path: Path) -> None:
    rows = [longbench_row(i, dataset="trec", answers=["A"], all_classes=["A", "B"]) for i in range(4)]
    path = longbench_zip(tmp_path / "data.zip", {"trec": rows})
    said: list[str] = []
    prepared = prepare(settings(tmp_path, "dataset.task=trec", f"dataset.path={path}"), report=said.append)
    prompt = prepared.head.prompt
    assert (prompt["first_line_only"], prompt["task_max_new_tokens"], prepared.head.metric) == (
        True,
        64,
        "classification_first_line",
    )
    assert any("without a chat template" in line for line in said)
    assert all(example.meta["all_classes"] == ["A", "B"] for _, example in read_items(prepared.path))


def test_a_corrected_metric_is_chosen_by_name_and_stands_in_the_manifest(tmp_path: Path) -> None:
    row = longbench_row(0, dataset="trec", answers=["Food"], all_classes=["Food"])
    archive = longbench_zip(tmp_path / "data.zip", {"trec": [row]})
    config = ["dataset.name=longbench", "dataset.task=trec", f"dataset.path={archive}"]
    own = open_source(settings(tmp_path, *config))
    fixed = "dataset.params={metric: classification_fixed_first_line}"
    assert own.metric == "classification_first_line"
    made = prepare(settings(tmp_path, *config, fixed), report=lambda _: None)
    assert made.head.metric == "classification_fixed_first_line"


@pytest.mark.parametrize(
    "overrides",
    [
        ("dataset.name=longbench", "dataset.task=trec", "dataset.params={metric: classification_fixd}"),
        (
            "dataset.name=jsonl",
            "dataset.task=t",
            "dataset.path=x.jsonl",
            "dataset.params={metric: classification_fixd}",
        ),
    ],
)
def test_an_unknown_metric_is_refused_by_validate_with_the_nearest_name(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="classification_fixd") as caught:
        check_data(settings(tmp_path, *overrides))
    assert "Did you mean classification_fixed?" in caught.value.do


@pytest.mark.parametrize("task", ["dureader", "vcsum", "multifieldqa_zh"])
def test_a_task_whose_metric_lacks_its_package_is_refused_by_validate(
    tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(ConfigError, match="needs the package jieba") as caught:
        check_data(settings(tmp_path, "dataset.name=longbench", f"dataset.task={task}"))
    assert "kvt[longbench]" in caught.value.do
    check_data(settings(tmp_path, "dataset.name=longbench", "dataset.task=gov_report"))


def test_the_documented_table_is_the_one_in_use() -> None:
    text = (Path(__file__).parents[2] / "docs/DATA.md").read_text(encoding="utf-8")
    for key, task in TASKS.items():
        says = ["yes" if flag else "" for flag in (not task.chat_template, task.first_line_only, task.in_e)]
        assert f"| {key} | {task.scored_by} | {task.max_new_tokens} | {' | '.join(says)} |" in text


@pytest.mark.parametrize("packed", [True, False])
def test_a_line_beyond_the_longest_allowed_is_named_before_it_is_held(tmp_path: Path, packed: bool) -> None:
    rows = [longbench_row(0), longbench_row(1) | {"context": "long " * 400}]
    if packed:
        path = longbench_zip(tmp_path / "data.zip", {"qasper": rows})
    else:
        path = write_lines(tmp_path / "qasper.jsonl", rows).parent
    named = ("dataset.name=longbench", "dataset.task=qasper", f"dataset.path={path}")
    with pytest.raises(ConfigError, match=r"longer than 0\.002 MB") as caught:
        list(open_source(settings(tmp_path, *named, "dataset.params.max_line_mb=0.002")).rows())
    assert caught.value.where.endswith("qasper.jsonl:2")
    assert len(list(open_source(settings(tmp_path, *named, "dataset.params.max_line_mb=0.003")).rows())) == 2
    with pytest.raises(ConfigError, match="max_line_mb must be"):
        check_data(settings(tmp_path, *named, "dataset.params.max_line_mb=-1"))
