"""Was the budget applied: one run's verdict from what its responses said."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pytest

from analyzer.read.runs import Run
from analyzer.summarise.budget_evidence import run_evidence, worst

RUN = Run("r", "d", "snapkv", "snapkv", 0.5, "fraction", "question_aware", "body", False, 0, 0)


def answers(
    effective: Sequence[float | None],
    *,
    prompt: int = 400,
    context: int = 390,
    compressible: int | None = None,
    source: str = "echoed",
) -> pl.DataFrame:
    n = len(effective)
    return pl.DataFrame(
        {
            "is_failure": [False] * n,
            "kv_effective": effective,
            "source": [source] * n,
            "prompt_tokens": [prompt] * n,
            "token_len": [prompt] * n,
            "context_tokens": [context] * n,
            "compressible_tokens": [compressible] * n,
        },
        schema_overrides={"kv_effective": pl.Float64, "compressible_tokens": pl.Int64, "source": pl.String},
    )


def status(run: Run, frame: pl.DataFrame) -> str:
    return run_evidence(run, frame).status


@pytest.mark.parametrize(
    ("effective", "expected"),
    [
        ([0.5] * 100, "verified"),
        ([0.495] * 100, "verified"),  # within 0.01
        ([0.48] * 100, "contradicted"),
        ([1.0] * 100, "contradicted"),
        ([0.5] * 99 + [1.0], "verified"),  # 1% may be off
        ([0.5] * 98 + [1.0] * 2, "contradicted"),
        ([None] * 100, "unverified"),
        ([0.5] * 50 + [None] * 50, "unverified"),
    ],
)
def test_a_run_is_judged_by_the_share_of_responses_that_are_off(effective: list[float | None], expected: str) -> None:
    assert status(RUN, answers(effective)) == expected


def test_of_a_prompt_that_was_cut_one_token_of_our_own_count_is_allowed() -> None:
    """The server counts a chat template in, or with another tokenizer: its count is no length of what was cut."""
    cut = replace(RUN, series="truncate_prompt/middle", kv_policy="truncate_prompt")
    frame = answers([4 / 9] * 20, source="configured").with_columns(token_len=9)
    assert status(cut, frame) == "unverified"
    assert status(cut, frame.with_columns(kv_effective=2 / 9)) == "contradicted"


def test_one_rounding_unit_of_a_short_prompt_is_allowed() -> None:
    frame = answers([0.5 - 1 / 40] * 20, prompt=40, context=30)
    assert status(RUN, frame) == "verified"
    assert status(RUN, answers([0.5 - 1 / 40] * 20)) == "contradicted"


def test_where_only_the_context_is_compressed_its_length_sets_the_rounding_unit() -> None:
    agnostic = replace(RUN, kv_mode="question_agnostic")
    frame = answers([0.5 - 1 / 40] * 20, prompt=400, context=40)
    assert status(agnostic, frame) == "verified"
    assert status(RUN, frame) == "contradicted"
    assert status(RUN, answers([0.5 - 1 / 40] * 20, compressible=40)) == "verified"


def test_a_cap_in_tokens_keeps_all_of_a_shorter_prompt() -> None:
    capped = replace(RUN, kv_budget=512, kv_unit="tokens")
    assert status(capped, answers([400.0] * 10)) == "verified"
    assert status(capped, answers([512.0] * 10, prompt=900)) == "verified"
    assert status(capped, answers([900.0] * 10, prompt=900)) == "contradicted"


def test_full_cache_has_nothing_to_prove_unless_it_evicted() -> None:
    full = replace(RUN, kv_budget=1.0, is_full=True, series="full")
    assert status(full, answers([None] * 5)) == "full"
    assert status(full, answers([0.6] * 5)) == "contradicted"


def test_labels_and_configured_budgets_are_never_verified() -> None:
    assert status(replace(RUN, kv_apply="none"), answers([0.5] * 5)) == "unverified"
    row = run_evidence(RUN, answers([0.5] * 5, source="configured"))
    assert (row.status, row.source) == ("unverified", "configured")
    assert "nothing shows" in row.reason


def test_bit_widths_are_compared_as_they_are() -> None:
    bits = replace(RUN, kv_budget=8, kv_unit="bits")
    assert status(bits, answers([8.0] * 5)) == "verified"
    assert status(bits, answers([16.0] * 5)) == "contradicted"


def test_a_series_is_as_good_as_its_worst_run() -> None:
    assert worst(["full", "verified", "unverified"]) == "unverified"
    assert worst([]) == "full"
