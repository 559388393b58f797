"""Series against series on the first screen: every difference is told as proven or as not proven, at every budget."""

from analyzer.results.comparison_words import HOW, comparison_sentences
from analyzer.store.tables import Comparison

SNAPKV, STREAMING, TOVA, RANDOM = "snapkv/aware", "streaming_llm/aware", "tova/agnostic", "random/aware"


def pair(a: str, b: str, budget: float, diff: float, p: float) -> Comparison:
    return Comparison(a, b, budget, -1, 40, diff, diff - 0.05, diff + 0.15, p, p)


def test_each_difference_is_told_as_proven_or_not_at_each_budget() -> None:
    rows = [
        pair(SNAPKV, STREAMING, 0.75, 0.02, 0.7), pair(SNAPKV, STREAMING, 0.5, 0.3, 0.01),
        pair(SNAPKV, RANDOM, 0.75, 0.4, 0.001), pair(SNAPKV, RANDOM, 0.5, 0.8, 0.001),
        pair(STREAMING, RANDOM, 0.75, 0.38, 0.01), pair(STREAMING, RANDOM, 0.5, -0.1, 0.3),
    ]  # fmt: skip
    assert comparison_sentences(rows, SNAPKV, 0.05, "fraction") == [
        "With 75% of the cache kept: against SnapKV, proven: Random eviction "
        "−0.40 [−0.55, −0.35], not proven: StreamingLLM −0.02 [−0.17, 0.03]; among the others, "
        "proven: StreamingLLM above Random eviction by 0.38 [0.33, 0.53].",
        "With 50% of the cache kept: against SnapKV, proven: StreamingLLM "
        "−0.30 [−0.45, −0.25] and Random eviction −0.80 [−0.95, −0.75]; among the others, "
        "not proven: Random eviction above StreamingLLM by 0.10 [−0.05, 0.15]. " + HOW,
    ]


def test_two_series_of_one_policy_keep_their_whole_names() -> None:
    rows = [pair(SNAPKV, "snapkv/agnostic", 0.5, 0.3, 0.01), pair(SNAPKV, RANDOM, 0.5, 0.3, 0.01)]
    (line,) = comparison_sentences(rows, SNAPKV, 0.05, "fraction")
    assert "against SnapKV (sees the question), proven: SnapKV (evicts before the question is known) −0.30" in line
    assert "and Random eviction −0.30" in line


def test_many_differences_among_the_others_are_counted() -> None:
    names = [SNAPKV, STREAMING, TOVA, RANDOM, "knorm"]
    rows = [pair(a, b, 0.5, 0.2, 0.01 if b == "knorm" else 0.2) for i, a in enumerate(names) for b in names[i + 1 :]]
    (line,) = comparison_sentences(rows, SNAPKV, 0.05, "fraction")
    assert "; among the others, 3 of 6 differences are proven (table below)." in line


def test_where_nothing_is_proven_one_sentence_says_so() -> None:
    rows = [pair(SNAPKV, RANDOM, 0.5, 0.2, 0.2), pair(SNAPKV, RANDOM, 0.2, 0.2, 0.05)]
    assert comparison_sentences(rows, SNAPKV, 0.05, "fraction") == [
        "No two series differ for certain at any budget (paired, Holm-adjusted)."
    ]
    assert comparison_sentences([], SNAPKV, 0.05, "fraction") == []
