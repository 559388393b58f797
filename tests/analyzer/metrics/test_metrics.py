"""Every metric and the normalisation, on answers whose score is known."""

import re
import string
import sys
from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics import Meta, chinese_segmenter, find, metric, word_lists
from analyzer.metrics.code import common_subsequence
from analyzer.metrics.fast.overlap import overlap_scores
from analyzer.metrics.fast.task_metric import task_scores
from analyzer.metrics.normal import normalise, token_f1
from kvt_async.contract.errors import ConfigError
from tests.worlds import metric_of

TEXTS = st.text(alphabet=st.sampled_from("aAbB éÉß.,!-_$%^~`'«»¿。、 \t\n\u00a0123"), max_size=40)
WORDS = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=8).map(" ".join)


def scored(pred: str, golds: list[str]) -> dict[str, object]:
    frame = pl.DataFrame(
        {"pred_norm": [normalise(pred)], "golds_norm": [[normalise(g) for g in golds]]},
        schema={"pred_norm": pl.String, "golds_norm": pl.List(pl.String)},
    )
    return overlap_scores(frame).row(0, named=True)


@pytest.mark.parametrize(
    ("pred", "golds", "em", "f1", "gold"),
    [
        ("Paris.", ["paris"], 1, 1, "paris"),
        ("in Paris", ["Paris"], 0, 2 / 3, "paris"),
        ("a a b", ["a b b"], 0, 2 / 3, "a b b"),  # multiplicities: one a and one b are shared
        ("x", ["y", "x z"], 0, 2 / 3, "x z"),  # the best gold counts
        ("", [""], 1, 1, ""),
        ("", ["x"], 0, 0, "x"),
        ("x", [""], 0, 0, ""),
        ("x y", ["p q"], 0, 0, "p q"),
        ("anything", [], 0, 0, None),  # no golds: the right answer is no answer
        ("", [], 1, 1, None),
    ],
)
def test_em_and_f1_against_known_answers(pred: str, golds: list[Any], em: int, f1: float, gold: str | None) -> None:
    row = scored(pred, golds)
    assert (row["em"], row["f1"], row["gold_norm"]) == (em, pytest.approx(f1), gold)


@given(st.lists(st.tuples(WORDS, st.lists(WORDS, max_size=3)), min_size=1, max_size=12))
def test_the_vectorised_f1_is_the_plain_one_row_by_row_and_keeps_the_rows(rows: list[tuple[Any, list[Any]]]) -> None:
    frame = pl.DataFrame(
        {"pred_norm": [p for p, _ in rows], "golds_norm": [g for _, g in rows]},
        schema={"pred_norm": pl.String, "golds_norm": pl.List(pl.String)},
    )
    result = overlap_scores(frame)
    assert result["pred_norm"].to_list() == [p for p, _ in rows]
    for (pred, golds), f1, em in zip(rows, result["f1"], result["em"], strict=True):
        assert f1 == pytest.approx(max(token_f1(pred, g) for g in golds or [""]))
        assert em == float(pred in (golds or [""]))


def official_qa_f1(prediction: str, gold: str) -> float:
    """An independent reading of LongBench's description: articles and punctuation out, F1 over tokens."""

    def tokens(text: str) -> list[str]:
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    a, b = tokens(prediction), tokens(gold)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b)) if same else 0.0


@given(TEXTS, TEXTS)
def test_qa_f1_is_the_harmonic_mean_of_precision_and_recall_without_articles(prediction: str, gold: str) -> None:
    assert metric_of("qa_f1").score(prediction, [gold], {}) == pytest.approx(official_qa_f1(prediction, gold), abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "prediction", "golds", "meta", "expected"),
    [
        ("qa_f1", "The cat", ["a cat"], {}, 1.0),
        ("qa_f1", "", [""], {}, 0.0),
        ("retrieval", "Paragraph 12", ["Paragraph 12"], {}, 1.0),
        ("retrieval", "12 or 13", ["Paragraph 12"], {}, 0.5),
        ("retrieval", "the second", ["Paragraph 2"], {}, 0.0),
        ("retrieval_zh", "段落3", ["段落3"], {}, 1.0),
        ("count", "There are 7.", ["7"], {}, 1.0),
        ("count", "7 of 10", ["7"], {}, 0.5),
        ("count", "seven", ["7"], {}, 0.0),
        ("classification", "Food", ["Food"], {"all_classes": ["Food", "Date"]}, 1.0),
        ("classification", "Food or Date", ["Food"], {"all_classes": ["Food", "Date"]}, 0.5),
        ("classification", "nothing", ["Food"], {"all_classes": ["Food", "Date"]}, 0.0),
        # a named class that is part of the gold's own name does not count against it
        ("classification", "Other number", ["Other number"], {"all_classes": ["number", "Other number"]}, 1.0),
        ("code_sim", "x = 1\ny = 2", ["x = 1"], {}, 1.0),
        ("code_sim", "# comment\nx = 1", ["x = 1"], {}, 1.0),
        ("code_sim", "abcd", ["abxy"], {}, 0.5),
        ("code_sim", "", ["x"], {}, 0.0),
        ("string_match_all", "one and TWO", ["one", "two", "three"], {}, 2 / 3),
        ("string_match_part", "one and two", ["three", "Two"], {}, 1.0),
        ("string_match_part", "in Zu\u0308rich", ["Zürich"], {}, 1.0),  # composed or not
        ("string_match_all", "한국, CAFÉ", ["\u1112\u1161\u11ab국", "cafe\u0301", "x"], {}, 2 / 3),
        ("choice_letter", "The answer is B.", ["B"], {}, 1.0),
        ("squad_f1", "The cat", ["a cat"], {}, 1.0),
        ("squad_f1", "3.5", ["35"], {}, 1.0),  # SQuAD's own: every mark goes
        ("squad_f1", "", [""], {}, 1.0),  # SQuAD 2.0: two empty answers agree
        ("squad_f1", "the", [], {}, 1.0),  # no gold: nothing is the answer, and an article is nothing
        ("squad_f1", "", ["the", "cat"], {}, 0.0),  # a gold of which nothing is left is none beside others
        ("squad_em", "", ["", "cat"], {}, 0.0),
        ("squad_em", "an", ["the", "a."], {}, 1.0),
        ("squad_f1", "a red cat", ["cat"], {}, 2 / 3),
        ("squad_em", "The cat.", ["dog", "cat"], {}, 1.0),
        ("squad_em", "red cat", ["cat"], {}, 0.0),
    ],
)
def test_task_metrics_against_known_answers(
    metric: str, prediction: str, golds: list[Any], meta: dict[str, Any], expected: float
) -> None:
    assert metric_of(metric).score(prediction, golds, meta) == pytest.approx(expected)


@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=2)), min_size=1, max_size=6))
def test_squads_column_rules_are_the_rules_for_one_answer(rows: list[tuple[Any, list[Any]]]) -> None:
    frame = pl.DataFrame(
        {"said": [said for said, _ in rows], "golds": [golds for _, golds in rows]},
        schema={"said": pl.String, "golds": pl.List(pl.String)},
    )
    for name in ("squad_em", "squad_f1"):
        expected = [metric_of(name).score(said, golds, {}) for said, golds in rows]
        assert task_scores(frame, name)["score"].to_list() == pytest.approx(expected), name


@given(st.text(alphabet="abc", max_size=12), st.text(alphabet="abc", max_size=12))
def test_the_bit_parallel_common_subsequence_is_the_textbook_one(a: str, b: str) -> None:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert common_subsequence(a, b) == table[-1][-1]


def test_a_metric_of_one_gold_counts_the_best_of_them_and_stays_the_function_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find("qa_f1")  # every metric of ours is registered now, and stays so
    monkeypatch.setattr("analyzer.metrics._REGISTRY", {})

    @metric("same_length", each_gold=True)
    def same_length(prediction: str, gold: str, meta: Meta) -> float:
        return float(len(prediction) == len(gold))

    task = find("same_length")
    assert task is not None
    assert task.score("abc", ["x", "xyz"], {}) == 1.0
    assert task.score("abc", ["x"], {}) == task.score("abc", [], {}) == 0.0
    assert same_length("abc", "x", {}) == 0.0
    with pytest.raises(ValueError, match="registered twice"):
        metric("same_length", each_gold=True)(same_length)


def test_an_unknown_metric_is_a_config_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        find("bleu")
    assert "qa_f1" in caught.value.do


def test_a_metric_whose_package_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    for cached in (
        chinese_segmenter._segmenter,
        word_lists.chinese_words,
        word_lists.chinese_tokens,
    ):  # other tests may have loaded it
        cached.cache_clear()
    with pytest.raises(ConfigError, match="jieba") as caught:
        metric_of("qa_f1_zh").score("没有", ["有"], {})
    assert "kvt[longbench]" in caught.value.do
