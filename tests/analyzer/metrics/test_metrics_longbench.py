"""Every LongBench task scores as the official script does; corrected variants have names of their own.

The figures in golden/longbench_metrics.jsonl are the official script's, for answers made by
scripts/make_longbench_golden.py.
"""

import json
import marshal
import random
from collections import Counter
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer import metrics
from analyzer.metrics import Metric, chinese_segmenter, find
from analyzer.metrics.chinese_segmenter import cut
from analyzer.metrics.code import matching_characters
from analyzer.metrics.fast import row_scorer
from analyzer.metrics.fast.task_metric import task_scores
from analyzer.metrics.rouge import common_words
from analyzer.metrics.word_lists import english_tokens
from kvt_async.contract.formulas.metric_needs import NEEDS
from tests.worlds import metric_of

GOLDEN = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "golden/longbench_metrics.jsonl").read_text(encoding="utf-8").splitlines()
]
METRIC_OF = {
    "narrativeqa": "qa_f1",
    "qasper": "qa_f1",
    "multifieldqa_en": "qa_f1",
    "multifieldqa_zh": "qa_f1_zh",
    "hotpotqa": "qa_f1",
    "2wikimqa": "qa_f1",
    "musique": "qa_f1",
    "dureader": "rouge_zh",
    "gov_report": "rouge",
    "qmsum": "rouge",
    "multi_news": "rouge",
    "vcsum": "rouge_zh",
    "trec": "classification_first_line",
    "triviaqa": "qa_f1_first_line",
    "samsum": "rouge_first_line",
    "lsht": "classification_first_line",
    "passage_count": "count",
    "passage_retrieval_en": "retrieval",
    "passage_retrieval_zh": "retrieval_zh",
    "lcc": "code_sim",
    "repobench-p": "code_sim",
}


ANSWERED: dict[str, Any] = {
    "said": pl.String,
    "golds": pl.List(pl.String),
    "needed_json": pl.Categorical,
}


def has_form(metric: Metric, text: str, meta: dict[str, Any]) -> bool:
    """Whether an answer has the form that the metric's task asks for, which this one does define."""
    assert metric.format_ok is not None
    return metric.format_ok(text, meta)


def as_frame(answers: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "said": [a["prediction"] for a in answers],
            "golds": [a["answers"] for a in answers],
            "needed_json": [json.dumps({"all_classes": a.get("all_classes")}) for a in answers],
        },
        schema=ANSWERED,
    )


@pytest.mark.parametrize("task", METRIC_OF)
def test_a_task_scores_every_answer_as_the_official_script_does(task: str) -> None:
    if any(find_spec(package) is None for package in NEEDS[METRIC_OF[task]]):
        pytest.skip("needs the extra longbench")
    answers = [row for row in GOLDEN if row["task"] == task]
    scores = task_scores(as_frame(answers), METRIC_OF[task])["score"]
    for row, score in zip(answers, scores, strict=True):
        assert score == pytest.approx(row["score"], abs=1e-6), (row["prediction"], row["answers"])


def test_the_golden_answers_are_many_and_cover_partial_scores_of_every_task() -> None:
    assert len(GOLDEN) >= 400
    for task in METRIC_OF:
        scores = [row["score"] for row in GOLDEN if row["task"] == task]
        assert any(0 < s < 1 for s in scores), task
        assert 0 in scores, task


def test_the_runner_knows_exactly_the_metrics_that_the_analyzer_registers() -> None:
    find("qa_f1")
    assert set(NEEDS) == {*metrics._REGISTRY, *metrics.COLUMN_METRICS}


CLASSES = ["r", "number", "Other", "Other number"]


def test_the_corrected_classification_drops_every_part_of_the_gold_name() -> None:
    said, gold, meta = "Other number", ["Other number"], {"all_classes": CLASSES}
    assert metric_of("classification").score(said, gold, meta) == pytest.approx(1 / 2)  # as published: one is skipped
    assert metric_of("classification_fixed").score(said, gold, meta) == 1
    assert (
        metric_of("classification_fixed").score("Other number, Date", gold, {"all_classes": [*CLASSES, "Date"]})
        == 1 / 2
    )
    assert metric_of("classification_fixed").score("Date", gold, {"all_classes": [*CLASSES, "Date"]}) == 0


def test_sentences_beyond_the_packages_recursion_score_zero_and_the_corrected_variant_scores_them() -> None:
    text = " ".join(f"w{i % 300}" for i in range(1100))
    other = " ".join(f"w{i % 290}" for i in range(1100))
    assert metric_of("rouge").score(text, [other], {}) == 0
    assert metric_of("rouge_fixed").score(text, [other], {}) > 0.5
    assert metric_of("rouge_fixed").score("the cat. sat", ["the cat"], {}) == metric_of("rouge").score(
        "the cat. sat", ["the cat"], {}
    )


def test_code_similarity_with_the_optional_c_library_has_a_name_of_its_own() -> None:
    said, gold = "a1b2c3XYZ", "XYZa1-b2-c3"  # difflib takes XYZ and has nothing left of it; the subsequence has six
    assert metric_of("code_sim").score(said, [gold], {}) == 0.3
    assert metric_of("code_sim_indel").score(said, [gold], {}) == 0.6


@given(st.text(alphabet="ab c=", max_size=30), st.text(alphabet="ab c=", max_size=30))
def test_matching_characters_are_those_of_difflibs_blocks(a: str, b: str) -> None:
    expected = sum(block.size for block in SequenceMatcher(None, a, b).get_matching_blocks())
    assert matching_characters(a, b) == expected


@pytest.mark.parametrize("size", [199, 200, 600])
def test_long_texts_follow_difflibs_rule_for_frequent_characters(size: int) -> None:
    rng = random.Random(size)
    a, b = ("".join(rng.choices("abcdefgh  ", k=size)) for _ in range(2))
    assert matching_characters(a, b) == sum(x.size for x in SequenceMatcher(None, a, b).get_matching_blocks())


@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_the_words_taken_are_those_of_the_table_walked_back_as_the_package_walks_it(a: list[str], b: list[str]) -> None:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    i, j, words, calls = len(a), len(b), set(), 1
    while i and j:
        if a[i - 1] == b[j - 1]:
            words.add(a[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
        calls += 1
    assert common_words(a, b) == (words, calls)


TEXTS = st.text(alphabet=st.sampled_from("atheAn ,.-_'<>\\]^\t\n\x1f\x0bé\u0301\u00a0b1"), max_size=14)


@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=3)), min_size=1, max_size=12))
def test_token_overlap_over_columns_is_the_rule_for_one_answer(pairs: list[tuple[Any, list[Any]]]) -> None:
    def f1(a: tuple[str, ...], b: tuple[str, ...]) -> float:
        same = sum((Counter(a) & Counter(b)).values())
        return 2 * same / (len(a) + len(b)) if same else 0.0

    frame = as_frame([{"prediction": said, "answers": golds} for said, golds in pairs])
    expected = [max((f1(english_tokens(s), english_tokens(g)) for g in golds), default=0.0) for s, golds in pairs]
    assert task_scores(frame, "qa_f1")["score"].to_list() == pytest.approx(expected, abs=1e-9)


SAID = st.text(alphabet=st.sampled_from("0123 .P段落٣\n"), max_size=12)
GOLD = st.sampled_from(["3", "12", "Paragraph 3", "Paragraph 12", "段落3", "段落12", "", "٣"])


@given(st.lists(st.tuples(SAID, st.lists(GOLD, max_size=3)), min_size=1, max_size=12))
def test_numbers_over_columns_are_the_rule_for_one_answer(pairs: list[tuple[Any, list[Any]]]) -> None:
    frame = as_frame([{"prediction": said, "answers": golds} for said, golds in pairs])
    for name in ("count", "retrieval", "retrieval_zh"):
        scored = task_scores(frame, name)
        expected = [metric_of(name).score(said, golds, {}) for said, golds in pairs]
        assert scored["score"].to_list() == pytest.approx(expected, abs=1e-9)
        assert scored["format_ok"].to_list() == [has_form(metric_of(name), said, {}) for said, _ in pairs]


NAMES = ["r", "number", "Other", "Other number", "Date", "te", "体育", "体"]
CLASS_LISTS = st.one_of(
    st.lists(st.sampled_from(NAMES), max_size=6, unique=True),
    st.sampled_from([None, [], [""], ["Other", "Other"], ["", "Date"], ["number", 3], "Date"]),
)
CLASS_ANSWERS = st.tuples(
    st.lists(st.sampled_from([*NAMES, " ", "\n", "}", '"all_classes":["Date"]']), max_size=4).map("".join),
    st.lists(st.sampled_from([*NAMES, ""]), max_size=3),
    CLASS_LISTS,
)


@given(st.lists(CLASS_ANSWERS, min_size=1, max_size=12))
def test_classes_over_columns_are_the_rule_for_one_answer(answers: list[Any]) -> None:
    said_golds_meta = [(said, golds, {"all_classes": classes}) for said, golds, classes in answers]
    texts = [orjson.dumps({"all_classes": classes}).decode() for _, _, classes in answers]
    frame = pl.DataFrame(
        {"said": [said for said, _, _ in answers], "golds": [golds for _, golds, _ in answers], "needed_json": texts},
        schema=ANSWERED,
    )
    for name in ("classification", "classification_fixed"):
        scored, task = task_scores(frame, name), metric_of(name)
        assert scored["score"].to_list() == [task.score(*given) for given in said_golds_meta]
        assert scored["format_ok"].to_list() == [has_form(task, said, meta) for said, _, meta in said_golds_meta]


NEEDLE_TEXTS = st.text(alphabet=st.sampled_from("7aA \n\x00\x1f\x1c\x7fİß,"), max_size=12)


@given(st.lists(st.tuples(NEEDLE_TEXTS, st.lists(NEEDLE_TEXTS, max_size=3)), min_size=1, max_size=12))
def test_needles_over_columns_are_the_rule_for_one_answer(pairs: list[tuple[Any, list[Any]]]) -> None:
    frame = as_frame([{"prediction": said, "answers": golds} for said, golds in pairs])
    for name in ("string_match_all", "string_match_part"):
        scored = task_scores(frame, name)
        assert scored["score"].to_list() == [metric_of(name).score(said, golds, {}) for said, golds in pairs]
        assert scored["format_ok"].to_list() == [None] * len(pairs)


CHINESE = st.text(
    alphabet=st.one_of(
        st.sampled_from("的一是不了我北京大学研究生命起源会议讨论关税下降小明硕士毕业于中国科学院计算所"),
        st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
        st.sampled_from("，。！ \r\n\u3000a9Z.%+#-_é\u2028𠮷"),
    ),
    max_size=40,
)


@given(CHINESE)
def test_chinese_text_is_cut_as_jieba_cuts_it(text: str) -> None:
    jieba = pytest.importorskip("jieba")
    assert list(cut(text)) == list(jieba.cut(text, cut_all=False))


def test_a_dictionary_that_others_left_in_the_temporary_folder_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jieba = pytest.importorskip("jieba")
    monkeypatch.setattr(jieba.dt, "tmp_dir", str(tmp_path))
    monkeypatch.setattr(jieba.dt, "initialized", False)
    (tmp_path / "jieba.cache").write_bytes(marshal.dumps(({"大学": 5}, 5)))
    chinese_segmenter._segmenter.cache_clear()
    assert list(cut("我来到北京清华大学")) == ["我", "来到", "北京", "清华大学"]


def test_words_that_the_dictionary_lacks_are_cut_as_jieba_cuts_them() -> None:
    jieba = pytest.importorskip("jieba")
    jieba.initialize()
    rng, known = random.Random(5), list(jieba.dt.FREQ)
    for size in (2, 5, 20, 80):
        for _ in range(60):
            drawn = (rng.choice((rng.choice(known), chr(rng.randrange(0x4E00, 0x9FD5)))) for _ in range(size))
            text = "".join(drawn)
            assert list(cut(text)) == list(jieba.cut(text, cut_all=False)), text


def test_reasoning_is_cut_but_line_breaks_and_indentation_reach_the_metric() -> None:
    code = metric_of("code_sim")
    assert code.score("    x", ["    x"], {}) == 1
    assert code.score("x", ["    x"], {}) < 1


def test_answers_on_several_processes_score_as_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_scorer, "WORTH_IT_S", 0.0)
    monkeypatch.setattr(row_scorer, "cores", lambda: 2)
    answers = [(f"{i} of {i % 7}", (str(i),), "") for i in range(row_scorer.TRIAL + 700)] * 2
    assert row_scorer.score_rows("count", answers) == row_scorer.score_slice("count", answers)
    row_scorer._pool(()).shutdown()
    row_scorer._pool.cache_clear()


def test_control_characters_are_line_breaks_for_string_match() -> None:
    assert metric_of("string_match_all").score("71\x0045", ["7145"], {}) == 0
    assert metric_of("string_match_all").score("\x017145\x02", ["7145"], {}) == 1
