"""One algebra of budgets: every spelling converts into every other and back, and rounding is shown."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvt_async.contract.formulas.kv_budget import Rounding, convert, in_blocks, n_kept, tokens_kept
from kvt_async.contract.formulas.kv_bytes import bytes_per_token, gib_saved

UNITS = ("fraction", "compression_ratio", "divisor", "tokens", "bits", "bytes")
fractions = st.floats(0.001, 1.0)
lengths = st.integers(1, 2_000_000)
blocks = st.integers(1, 256)
roundings = st.sampled_from(["up", "down", "nearest"])


def known_budget(value: float, unit: str, other: str, **known: float) -> float:
    """`convert` where everything is known that it needs."""
    budget = convert(value, unit, other, **known)
    assert budget is not None
    return budget


@pytest.mark.parametrize(
    ("unit", "value"),
    [("fraction", 0.2), ("compression_ratio", 0.8), ("divisor", 5.0), ("tokens", 200.0), ("bits", 3.2),
     ("bytes", 200 * 1024.0)],
)  # fmt: skip
def test_a_fifth_of_a_thousand_tokens_in_every_spelling(unit: str, value: Any) -> None:
    assert convert(0.2, "fraction", unit, length=1000, token_bytes=1024) == pytest.approx(value)


@given(fractions, lengths, st.sampled_from(UNITS), st.sampled_from(UNITS))
def test_every_spelling_converts_into_every_other_and_back(fraction: float, length: int, unit: str, other: str) -> None:
    known: dict[str, float] = {"length": length, "token_bytes": 131072.0}
    value = known_budget(fraction, "fraction", unit, **known)
    there = known_budget(value, unit, other, **known)
    assert convert(there, other, unit, **known) == pytest.approx(value, rel=1e-9, abs=1e-11)
    assert convert(there, other, "fraction", **known) == pytest.approx(fraction, rel=1e-9, abs=1e-11)


@given(fractions, fractions)
def test_a_harsher_budget_is_harsher_in_every_spelling(a: float, b: float) -> None:
    assume(a < b)
    for unit, up in (("compression_ratio", False), ("divisor", False), ("tokens", True), ("bits", True)):
        x, y = (known_budget(f, "fraction", unit, length=1000) for f in (a, b))
        assert (x <= y) if up else (x >= y)


def test_what_is_not_known_or_is_no_budget_gives_nothing() -> None:
    assert convert(200, "tokens", "fraction") is None
    assert convert(0.5, "fraction", "bytes", length=100) is None
    assert convert(0, "divisor", "fraction") is None
    assert convert(1.2, "compression_ratio", "fraction") is None
    assert convert(600, "tokens", "fraction", length=400) == 1.5  # shown as reported, for the evidence to contradict


@given(st.integers(1, 10**7), blocks, roundings)
def test_whole_blocks_are_less_than_one_block_away_and_never_none(tokens: int, block: int, rounding: Rounding) -> None:
    kept = in_blocks(tokens, block, rounding)
    assert kept % block == 0
    assert kept >= block
    assert abs(kept - tokens) < block
    assert rounding != "up" or kept >= tokens


@given(fractions, lengths, blocks, roundings)
def test_tokens_kept_lie_between_one_and_all_and_within_one_block_of_what_was_asked(
    fraction: float, length: int, block: int, rounding: Rounding
) -> None:
    kept = tokens_kept(fraction, "fraction", length, round_to=block, rounding=rounding)
    assert 1 <= kept <= length
    assert abs(kept - n_kept(length, fraction)) < block
    assert tokens_kept(kept, "tokens", length, round_to=block, rounding=rounding) == kept  # rounding once is enough


@given(lengths, blocks, st.lists(fractions, min_size=2, max_size=6))
def test_more_budget_never_keeps_fewer_tokens(length: int, block: int, budgets: list[Any]) -> None:
    kept = [tokens_kept(b, "fraction", length, round_to=block) for b in sorted(budgets)]
    assert kept == sorted(kept)


def test_a_cap_above_the_prompt_keeps_the_prompt_and_bits_keep_every_token() -> None:
    assert tokens_kept(512, "tokens", 400, round_to=16) == 400
    assert tokens_kept(250, "tokens", 400, round_to=16) == 256
    assert tokens_kept(250, "tokens", 400, round_to=16, rounding="down") == 240
    assert tokens_kept(8, "bits", 400) == 400


@given(fractions, st.integers(1, 100_000), st.integers(1, 64))
def test_bytes_saved_are_the_bytes_that_are_not_kept(fraction: float, length: int, batch: int) -> None:
    per_token = bytes_per_token(
        {"num_hidden_layers": 32, "num_key_value_heads": 8, "num_attention_heads": 32, "hidden_size": 4096,
         "torch_dtype": "bfloat16"}
    )  # fmt: skip
    assert per_token == 131072
    whole = length * per_token * batch
    kept = known_budget(fraction, "fraction", "bytes", length=length, token_bytes=per_token) * batch
    assert math.isclose(gib_saved(per_token, length, batch, fraction) * 1024**3, whole - kept, rel_tol=1e-9, abs_tol=1)


def test_the_documents_example_is_the_count_that_is_sent() -> None:
    document = (Path(__file__).parents[2] / "docs/KV_BUDGETS.md").read_text(encoding="utf-8")
    (row,) = [line for line in document.splitlines() if line.startswith("| `unit: fraction`, budget 0.2 |")]
    assert f"{n_kept(1000, 0.2)} tokens kept (of 0.4: {n_kept(1000, 0.4)})" in row
