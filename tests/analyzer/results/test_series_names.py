"""What a series is called: nobody needs to know the config's labels to read a report."""

import pytest

from analyzer.results.number_format import cache_kept, cache_share
from analyzer.results.series_names import series_name, short_names, two_lines


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("snapkv/aware", "SnapKV (sees the question)"),
        ("snapkv/agnostic", "SnapKV (evicts before the question is known)"),
        ("snapkv", "SnapKV"),
        ("streaming_llm/agnostic sinks=8", "StreamingLLM (evicts before the question is known, sinks=8)"),
        ("truncate_prompt/middle", "Prompt cut short (its middle left out)"),
        ("kv_dtype dtype=fp8", "Cache stored as fp8"),
        ("mine/aware", "mine (sees the question)"),
        ("snapkv/aware/decode", "SnapKV (evicts while it answers)"),
        ("snapkv/aware/decode compression_interval=16 window=8", "SnapKV (evicts every 16 answer tokens, window=8)"),
        (
            "h2o/agnostic/both compression_interval=9",
            "H2O (evicts before the question is known, evicts every 9 answer tokens too)",
        ),
        ("tova/aware/decode compression_interval=1", "TOVA (evicts at every answer token)"),
        ("snapkv/aware compression_interval=16", "SnapKV (sees the question, compression_interval=16)"),
    ],
)
def test_policies_and_modes_are_put_into_words(label: str, name: str) -> None:
    assert series_name(label) == name


@pytest.mark.parametrize(
    "label", ["mine", "kvcompress window=8", "snapkv/left", "a | b <script>", "snapkv two words", ""]
)
def test_a_label_of_unknown_parts_stays_as_it_is(label: str) -> None:
    assert series_name(label) == label


def test_a_legend_has_short_names_and_two_series_of_one_name_keep_their_labels() -> None:
    assert short_names(["snapkv/agnostic", "random/aware"]) == {
        "snapkv/agnostic": "SnapKV (question not yet known)",
        "random/aware": "Random eviction (sees the question)",
    }
    decode = [f"{policy}/aware/decode compression_interval=16" for policy in ("streaming_llm", "snapkv")]
    decode[1] += " window=8"
    assert list(short_names(decode).values()) == ["StreamingLLM", "SnapKV (window=8)"]  # what both share is left out
    assert short_names(["snapkv/aware", "snapkv/aware/decode"]) == {
        "snapkv/aware": "SnapKV (sees the question)",
        "snapkv/aware/decode": "SnapKV (evicts while it answers)",
    }
    assert short_names(["h2o", "H2O"]) == {"h2o": "h2o", "H2O": "H2O"}
    assert two_lines("SnapKV (sees the question)") == "SnapKV\nsees the question"
    assert two_lines("SnapKV") == "SnapKV"


@pytest.mark.parametrize(
    ("value", "unit", "short", "whole"),
    [
        (0.3, "fraction", "30%", "30% of the cache kept"),
        (0.07, "fraction", "7%", "7% of the cache kept"),
        (0.0125, "fraction", "1.25%", "1.25% of the cache kept"),
        (1.0, "fraction", "full cache", "full cache"),
        (1024.0, "tokens", "1,024 tokens", "1,024 tokens kept"),
        (8.0, "bits", "8 bits", "8 bits per element of the cache"),
        (None, "fraction", "–", "–"),
    ],
)
def test_a_budget_reads_as_what_is_kept(value: float | None, unit: str, short: str, whole: str) -> None:
    assert (cache_share(value, unit), cache_kept(value, unit)) == (short, whole)
