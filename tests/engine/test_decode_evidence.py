"""What a reply says of a budget that applied while it was generated."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.formulas.decode_budget import first_compression, interval_of
from kvt_async.engine.request.kv_evidence import expectation, read_evidence
from tests.servers.decoding_server import held
from tests.worlds import levels_of

CAP = "{budget: 96, unit: tokens, when: %s}"
SHARE = "{budget: 0.5, when: decode}"
COMPRESSED = {
    "when": "decode",
    "n_compressions": 3,
    "kept_tokens": 101,
    "peak_tokens": 112,
    "compressed_tokens": 96,
    "kept_fraction": 0.62,
}
UNTOUCHED = COMPRESSED | {"n_compressions": 0, "compressed_tokens": None, "kept_fraction": None, "kept_tokens": 70}


def evidence(level: str, kv: dict[str, Any] | None, *overrides: str) -> tuple[dict[str, Any], float | None]:
    expects = expectation(levels_of(f"kv.levels=[{level}]", *overrides).levels[0], 1000)
    usage = {"prompt_tokens": 1000} | ({} if kv is None else {"kv": kv})
    return read_evidence(expects, usage, {"x-kept": "0.5"})


@pytest.mark.parametrize(
    ("level", "kv", "effective"),
    [
        (CAP % "decode", COMPRESSED, 96),
        (SHARE, COMPRESSED, 0.62),
        (CAP % "decode", UNTOUCHED, None),  # the answer ended before anything was compressed
        (SHARE, UNTOUCHED, None),
        (CAP % "both", UNTOUCHED | {"when": "both", "compressed_tokens": 96}, 96),  # the prompt was
        (CAP % "both", UNTOUCHED | {"when": "both"}, None),  # nor was the prompt, which is shorter than the cap
        (SHARE, {"n_compressions": 2, "kept_fraction": 0.5}, 0.5),
    ],
)
def test_the_effective_budget_is_the_most_held_right_after_a_compression(
    level: str, kv: dict[str, Any], effective: float | None
) -> None:
    record, number = evidence(level, kv)
    assert (record["effective"], number, record["source"]) == (effective, effective, "echoed")
    assert [record[name] for name in ("n_compressions", "kept_tokens", "peak_tokens", "when")] == [
        kv.get(name) for name in ("n_compressions", "kept_tokens", "peak_tokens", "when")
    ]
    assert "missing" not in record


@pytest.mark.parametrize(
    ("kv", "overrides", "missing"),
    [
        ({"kept_fraction": 0.5}, [], "usage.kv.n_compressions"),  # as a server answers that knows no `when`
        (None, [], "usage.kv.n_compressions"),
        (COMPRESSED, ["kv.evidence={header: x-kept}"], "usage.n_compressions"),
        ({"n_compressions": 2}, [], "usage.kv.kept_fraction"),
        (COMPRESSED | {"n_compressions": -3}, [], "usage.kv.n_compressions"),  # no numbers of compressions
        (COMPRESSED | {"n_compressions": 0.4}, [], "usage.kv.n_compressions"),
        (COMPRESSED | {"n_compressions": "often"}, [], "usage.kv.n_compressions"),
    ],
)
def test_nothing_is_applied_where_the_reply_does_not_say_how_often(
    kv: dict[str, Any] | None, overrides: list[str], missing: str
) -> None:
    record, number = evidence(SHARE, kv, *overrides)
    assert (number, record["effective"], record["missing"]) == (None, None, missing)


def test_the_record_names_the_figure_that_it_read_and_a_count_below_0_is_none() -> None:
    record, effective = evidence(CAP % "decode", COMPRESSED | {"peak_tokens": -1, "kept_tokens": "few"})
    assert (effective, record["read_from"]) == (96, "usage.kv.compressed_tokens")
    assert (record["peak_tokens"], record["kept_tokens"]) == (None, None)


def test_a_share_of_what_was_removed_is_read_and_a_number_of_tokens_is_no_share() -> None:
    places = "kv.evidence={usage: kv.%s, unit: %s}"
    kv = {"n_compressions": 1, "ratio": 0.5, "entries": 96}
    assert evidence(SHARE, kv, places % ("ratio", "compression_ratio"))[1] == 0.5
    assert evidence(SHARE, kv, places % ("entries", "tokens"))[1] is None
    assert evidence(CAP % "decode", kv, places % ("entries", "tokens"))[1] == 96


@given(
    st.integers(1, 300),
    st.integers(1, 400),
    st.integers(1, 64),
    st.integers(1, 500),
    st.sampled_from(["decode", "both"]),
)
def test_an_answer_is_compressed_exactly_where_it_is_longer_than_the_formula_says(
    budget: int, prompt: int, interval: int, answer: int, when: str
) -> None:
    kv = {"when": when, "keep_tokens": budget, "params": {"compression_interval": interval}}
    needed = first_compression(budget, "tokens", when, interval, prompt)
    assert (held(kv, prompt, answer).n_compressions > 0) is (answer > needed)


@pytest.mark.parametrize(
    ("value", "interval"), [(16, 16), (16.0, 16), (0, None), (None, None), (True, None), ("8", None)]
)
def test_an_interval_is_a_count(value: object, interval: int | None) -> None:
    assert interval_of({"compression_interval": value}) == interval
