"""IFEval's rows: prompts to the letter, instructions in meta, and rows that nobody could judge refused beforehand.

Rows are invented, in the format of google-research/instruction_following_eval/data/input_data.jsonl.
"""

from pathlib import Path
from typing import Any

import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import render
from kvt_async.data.manifest import read_items
from kvt_async.data.prepare import prepare
from kvt_async.data.sources import list_tasks, open_source, published
from tests.data.helpers import settings, write_lines

ROWS: list[dict[str, Any]] = [
    {
        "key": 7,
        "prompt": " Describe {context} without any commas.\n",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    },
    {
        "key": 8,
        "prompt": "Write about tea. Use the word kettle at least twice, and wrap all of it in double quotes.",
        "instruction_id_list": ["keywords:frequency", "startend:quotation"],
        "kwargs": [{"relation": "at least", "keyword": "kettle", "frequency": 2, "num_words": None}, {"keyword": None}],
    },
]


def _settings(tmp_path: Path, *overrides: str, **changes: Any) -> Any:
    rows = [ROWS[0], {**ROWS[1], **changes}]
    write_lines(tmp_path / "raw/ifeval_input_data.jsonl", rows)
    return settings(tmp_path, "dataset.name=ifeval", f"dataset.path={tmp_path / 'raw'}", "binning.n_bins=1", *overrides)


def test_a_prompt_is_sent_to_the_letter_and_the_instructions_stay_beside_it(tmp_path: Path) -> None:
    source = open_source(_settings(tmp_path))
    examples = [row.example for row in source.rows()]
    assert source.template is not None
    for row, example in zip(ROWS, examples, strict=True):
        messages, _ = render(source.template, example.context, example.question)
        assert messages == [{"role": "user", "content": row["prompt"]}]
    assert [example.example_id for example in examples] == ["7", "8"]
    assert examples[1].meta == {
        "instruction_id_list": ["keywords:frequency", "startend:quotation"],
        "kwargs": [{"relation": "at least", "keyword": "kettle", "frequency": 2}, {}],
    }
    assert "sha256:" in source.revision


def test_the_task_has_its_sources_name_and_answers_of_1280_tokens(tmp_path: Path) -> None:
    config = _settings(tmp_path)
    own = published(config.dataset)
    assert own is not None
    assert (config.dataset.task_key, own.metric, own.max_new_tokens, own.stop) == (
        "ifeval",
        "ifeval_strict",
        1280,
        None,
    )
    assert [key for key, _ in list_tasks("ifeval", config)] == ["ifeval"]


def test_rows_without_golds_are_prepared_and_nothing_is_said_of_missing_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = prepare(_settings(tmp_path))
    assert [entry.example_id for entry, _ in read_items(prepared.path)] == ["7", "8"]
    assert "no answers" not in "".join(capsys.readouterr())


def test_prompts_with_fewer_instructions_can_be_left_out(tmp_path: Path) -> None:
    rows = open_source(_settings(tmp_path, "dataset.params.min_instructions=2")).rows()
    assert [row.example.example_id for row in rows] == ["8"]
    for wrong in ("0", "4", "true", "two"):
        with pytest.raises(ConfigError, match="from 1 to 3"):
            open_source(_settings(tmp_path, f"dataset.params.min_instructions={wrong}"))
    with pytest.raises(ConfigError, match="holds no examples") as caught:
        prepare(_settings(tmp_path, "dataset.params.min_instructions=3"))
    assert "whether dataset.params (min_instructions) leaves all rows out" in (caught.value.do or "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instruction_id_list": ["keywords:frequency"]}, "no list with the arguments of each instruction"),
        ({"instruction_id_list": ["keywords:frequency", "startend:quote"]}, "no instruction 'startend:quote'"),
        ({"kwargs": [{"keyword": "kettle", "frequency": 2}, {}]}, "needs relation, 'less than' or 'at least'"),
        (
            {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": ["en"]}]},
            "needs language, a language among",
        ),
        ({"instruction_id_list": [], "kwargs": []}, "is no list of instructions"),
    ],
)
def test_a_row_that_nobody_could_judge_is_refused_with_its_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        prepare(_settings(tmp_path, **changes))
    assert "1 of 2 rows can't be judged by the metric ifeval_strict" in str(error.value)
    assert "ifeval_input_data.jsonl:2 (8)" in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": " "}, "'prompt' must be a text"),
        ({"kwargs": "{}"}, "'kwargs' must be a list"),
    ],
)
def test_a_row_of_another_shape_is_refused_with_its_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        list(open_source(_settings(tmp_path, **changes)).rows())
    assert "ifeval_input_data.jsonl:2" in str(error.value)
