"""MRCR and LongBench v2: rows of the published format become the published prompts, and bad ones are named."""

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from kvt_async.data.example_prompt import prompt_rule
from kvt_async.data.prepare import check_data, prepare
from kvt_async.data.sources import list_tasks, longbench_v2, mrcr, open_source, published
from kvt_async.data.sources.longbench_v2 import MARKS, TEMPLATE
from kvt_async.data.tasks import tasks_of
from kvt_async.data.tokens import load_tokenizer
from kvt_async.records import Example
from tests.data.helpers import settings
from tests.data.hub import Hub, serving
from tests.data.long_context_rows import data_json, longbench_v2_row, mrcr_files, mrcr_row

MRCR_ROWS = [mrcr_row(seed) for seed in range(6)]
PROMPT_0SHOT = "68a162252bc9ff71d5d7abca3d69bb31aac3c35f832d657a2866f2018b8a6950"  # prompts/0shot.txt at 2e00731


def _mrcr(folder: Path, *overrides: str) -> Settings:
    return settings(folder, "dataset.name=mrcr", "dataset.task=2needle", f"dataset.path={folder}/mrcr", *overrides)


def _v2(folder: Path, *overrides: str) -> Settings:
    return settings(folder, "dataset.name=longbench_v2", f"dataset.path={folder}/v2", *overrides)


def _examples(of: Settings) -> list[Example]:
    return [row.example for row in open_source(of).rows()]


def _messages(of: Settings, example: Example) -> list[dict[str, str]]:
    return prompt_rule(of, open_source(of), load_tokenizer(of)).messages(example)


def test_the_messages_of_mrcr_are_sent_as_published(tmp_path: Path) -> None:
    mrcr_files(tmp_path / "mrcr", MRCR_ROWS)
    of = _mrcr(tmp_path)
    for row, example in zip(MRCR_ROWS, _examples(of), strict=True):
        assert _messages(of, example) == json.loads(row["prompt"])
        assert example.answers == (row["answer"],)
        assert {name: example.meta[name] for name in row if name not in ("prompt", "answer")} == {
            name: value for name, value in row.items() if name not in ("prompt", "answer")
        }


def test_mrcr_comes_as_two_files_or_one_of_all_needle_counts(tmp_path: Path) -> None:
    rows = [*MRCR_ROWS, mrcr_row(9, needles=4)]
    (tmp_path / "mrcr").mkdir()
    (tmp_path / "mrcr/2needle.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    one = _examples(_mrcr(tmp_path))
    assert _examples(_mrcr(tmp_path, f"dataset.path={tmp_path}/mrcr/2needle.jsonl")) == one
    mrcr_files(tmp_path / "published", MRCR_ROWS)
    assert _examples(_mrcr(tmp_path, f"dataset.path={tmp_path}/published")) == one
    (tmp_path / "published/2needle/2needle_1.parquet").unlink()
    with pytest.raises(ConfigError, match=r"holds no 2needle/2needle_1\.parquet"):
        open_source(_mrcr(tmp_path, f"dataset.path={tmp_path}/published"))


def test_what_a_haystack_is_decides_the_cluster_and_the_lengths(tmp_path: Path) -> None:
    """Two rows that begin with the same examples are no cluster, and bins see the whole conversation."""
    mrcr_files(tmp_path / "mrcr", [mrcr_row(1), mrcr_row(2, pairs=30)])
    said: list[str] = []
    made = prepare(_mrcr(tmp_path, "binning.n_bins=1"), report=said.append)
    entries = json.loads(made.path.read_text())["entries"]
    assert len({entry["context_sha256"] for entry in entries}) == 2
    short, long = sorted(entries, key=lambda entry: int(entry["token_len"]))
    assert long["context_tokens"] > 3 * short["context_tokens"] > 100
    assert not any("can't score" in line for line in said)


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("prompt.endpoint=completions", "prompt.endpoint"),
        ("prompt.template='{context} {question}'", "prompt.template"),
        ("prompt.max_context_tokens=1000", "prompt.max_context_tokens"),
        ("kv.mode=question_agnostic", "kv.apply"),
        ("kv.policies=[{policy: snapkv, mode: question_agnostic}]", "kv.apply"),
        ("dataset.task=3needle", "dataset.task"),
        ("dataset.params={needles: 2}", "dataset.params.needles"),
    ],
)
def test_a_config_that_would_change_the_conversation_is_refused(tmp_path: Path, override: str, where: str) -> None:
    mrcr_files(tmp_path / "mrcr", MRCR_ROWS)
    with pytest.raises(ConfigError) as refused:
        check_data(_mrcr(tmp_path, override))
    assert where in str(refused.value.where)


def test_a_config_that_says_how_many_messages_are_context_may_compress_them_alone(tmp_path: Path) -> None:
    mrcr_files(tmp_path / "mrcr", MRCR_ROWS)
    body = '{kv: {context_chars: "{context_chars}", context_messages: "{context_messages}"}}'
    check_data(_mrcr(tmp_path, "kv.mode=question_agnostic", f"kv.apply={{via: body, body: {body}}}"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "[{"}, "prompt is no JSON"),
        ({"prompt": '{"role": "user"}'}, "no list of chat messages"),
        ({"prompt": '[{"role": "user", "content": null}]'}, "no list of chat messages"),
        ({"prompt": '[{"role": "assistant", "content": "x"}]'}, "not the user's"),
        ({"answer": 3}, "answer"),
        ({"n_needles": ...}, "'n_needles' is missing"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    row = {name: value for name, value in (mrcr_row(1) | change).items() if value is not ...}
    (tmp_path / "mrcr").mkdir()
    (tmp_path / "mrcr/2needle.jsonl").write_bytes(orjson.dumps(row))
    with pytest.raises(ConfigError, match=words) as refused:
        _examples(_mrcr(tmp_path))
    assert "2needle.jsonl:1" in str(refused.value.where)


def test_the_prompt_of_longbench_v2_is_published_to_the_letter() -> None:
    choices = "".join(f"\n({letter}) $C_{letter}$" for letter in "ABCD")
    marked = TEMPLATE.replace("{context}", "$DOC$").replace("{question}", f"$Q$\nChoices:{choices}")
    assert hashlib.sha256(marked.encode()).hexdigest() == PROMPT_0SHOT


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"context": "Let $Q$ be a query and $C_B$ a class."},  # the script fills its marks there too
        {"question": "Is $C_A$ or $Q$ or $DOC$ meant ?", "choice_B": "$C_D$ {question} {context}"},
    ],
)
def test_a_row_of_longbench_v2_is_rendered_as_the_script_does(tmp_path: Path, changes: dict[str, str]) -> None:
    row = longbench_v2_row(5, **changes)
    data_json(tmp_path / "v2", [row])
    choices = "".join(f"\n({letter}) $C_{letter}$" for letter in "ABCD")
    prompt = TEMPLATE.replace("{context}", "$DOC$").replace("{question}", f"$Q$\nChoices:{choices}")
    for name, mark in {"context": "$DOC$", **MARKS}.items():
        prompt = prompt.replace(mark, row[name].strip())
    (example,) = _examples(_v2(tmp_path))
    assert _messages(_v2(tmp_path), example) == [{"role": "user", "content": prompt}]
    assert (example.example_id, example.answers) == (row["_id"], ("B",))


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ("{}", [0, 1, 2, 3, 4, 5]),
        ("{difficulty: hard}", [1, 3, 5]),
        ("{difficulty: hard, length: [short, long]}", [3, 5]),
        ("{domain: Multi-Document QA}", [2]),
    ],
)
def test_domains_difficulties_and_lengths_can_be_chosen(tmp_path: Path, params: str, kept: list[int]) -> None:
    rows = [longbench_v2_row(idx, **({"domain": "Multi-Document QA"} if idx == 2 else {})) for idx in range(6)]
    data_json(tmp_path / "v2", rows)
    examples = _examples(_v2(tmp_path, f"dataset.params={params}"))
    assert [example.example_id for example in examples] == [rows[idx]["_id"] for idx in kept]


def test_a_filter_that_no_row_could_pass_is_refused(tmp_path: Path) -> None:
    data_json(tmp_path / "v2", [longbench_v2_row(1)])
    with pytest.raises(ConfigError, match="no row of longbench_v2 has the length 'Short'") as refused:
        check_data(_v2(tmp_path, "dataset.params={length: Short}"))
    assert "Did you mean short?" in str(refused.value.do)
    data_json(tmp_path / "v2", [longbench_v2_row(1, length=["short"])])
    with pytest.raises(ConfigError, match="the field 'length' must be a string, not a list"):
        _examples(_v2(tmp_path, "dataset.params={length: short}"))


def test_the_middle_of_an_overlong_document_is_cut_and_question_and_choices_stay(tmp_path: Path) -> None:
    data_json(tmp_path / "v2", [longbench_v2_row(3, context="rain falls . " * 400)])
    of = _v2(tmp_path, "prompt.max_context_tokens=300", "binning.n_bins=1", "tokenizer.name=approx:chars/4")
    said: list[str] = []
    made = prepare(of, report=said.append)
    (example,) = json.loads(made.path.read_text())["examples"]
    assert example["question"].endswith("(D) ida")
    assert len(example["context"]) < 300 * 4
    assert any("cut in the middle" in line for line in said)


def test_answer_lengths_metrics_and_names_are_the_published_ones(tmp_path: Path) -> None:
    mrcr_files(tmp_path / "mrcr", MRCR_ROWS)
    data_json(tmp_path / "v2", [longbench_v2_row(1)])
    v2, needles = _v2(tmp_path), _mrcr(tmp_path)
    assert v2.dataset.task_key == "longbench_v2"
    for of, tokens, metric, temperature in ((v2, 128, "longbench_v2_letter", 0.1), (needles, 2000, "mrcr", None)):
        own = published(of.dataset)
        assert own is not None
        assert (own.max_new_tokens, own.metric, own.stop, own.temperature) == (tokens, metric, None, temperature)
        (task,) = tasks_of(of).tasks
        assert task.settings.decoding.max_tokens == tokens
    assert [key for key, _ in list_tasks("mrcr", needles)] == ["2needle", "4needle", "8needle"]


def test_both_come_from_the_hub_at_a_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mrcr_files(tmp_path / "mrcr", MRCR_ROWS)
    data_json(tmp_path / "v2", [longbench_v2_row(1)])
    names = ["2needle/2needle_0.parquet", "2needle/2needle_1.parquet"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hubs = (
        (_mrcr, Hub(mrcr.REPO, mrcr.REVISION, {name: (tmp_path / "mrcr" / name).read_bytes() for name in names})),
        (
            _v2,
            Hub(
                longbench_v2.FILE.repo,
                longbench_v2.FILE.revision,
                {"data.json": (tmp_path / "v2/data.json").read_bytes()},
            ),
        ),
    )
    for of, files in hubs:
        local = _examples(of(tmp_path))
        with serving(files) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            source = open_source(of(tmp_path, "dataset.path=null"))
            assert [row.example for row in source.rows()] == local
            pins = [f"{hub.revision} sha256:{hashlib.sha256(data).hexdigest()}" for data in hub.files.values()]
            assert source.revision == " ".join(pins)
