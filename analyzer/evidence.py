"""Was the budget applied? One verdict per run from what each response said about it (SPEC 6).

The tolerance of one response is max(0.01, one rounding unit / compressible tokens), as a fraction; a run is
contradicted when more than 1% of its responses are off by more. Full cache has nothing to prove, unless it says that
it evicted.
"""

from typing import Any

import polars as pl

from analyzer.tables import Run

TOLERANCE = 0.01
OFF_SHARE = 0.01
VERIFIED, UNVERIFIED, CONTRADICTED, FULL = "verified", "unverified", "contradicted", "full"
_CANARY = {
    "dead": "the server reports the budget, but the canary found that a destructive one changes no answer",
    "inconclusive": "the server reports the budget, but the canary could not tell: full cache did not repeat itself",
}
_ORDER = (FULL, VERIFIED, UNVERIFIED, CONTRADICTED)


def kept_fraction(unit: str) -> pl.Expr:
    """Effective budget as a fraction of the prompt; null without evidence and for bit widths."""
    effective, length = pl.col("kv_effective"), pl.col("prompt_tokens").fill_null(pl.col("token_len"))
    if unit == "tokens":
        return pl.min_horizontal(effective / length, pl.lit(1.0))
    return effective if unit == "fraction" else pl.lit(None, dtype=pl.Float64)


def kept_tokens(unit: str) -> pl.Expr:
    """Tokens kept: as the server counted them, else from the effective budget; null without evidence."""
    length = pl.col("prompt_tokens").fill_null(pl.col("token_len"))
    effective = pl.col("kv_effective")
    if unit == "fraction":
        return pl.coalesce("kept_tokens", effective * length)
    return pl.coalesce("kept_tokens", effective if unit == "tokens" else pl.lit(None, dtype=pl.Float64))


def run_evidence(run: Run, outcomes: pl.DataFrame, *, round_to: int = 1, canary: str | None = None) -> dict[str, Any]:
    """A run_evidence row (without fingerprint) from `outcomes.outcomes` joined with entries.

    `round_to`: tokens of a block that the server keeps whole; `canary`: its verdict where it was not alive.
    """
    answered = outcomes.filter(~pl.col("is_failure"))
    told = answered.filter(pl.col("kv_effective").is_not_null())
    sources = sorted(told["source"].drop_nulls().unique().to_list())
    off = told.select(_off(run, round_to).sum()).item() or 0
    row: dict[str, Any] = {
        "run_id": run.run_id,
        "source": sources[0] if len(sources) == 1 else "mixed" if sources else "none",
        "n": answered.height,
        "n_off": int(off),
        "requested": run.kv_budget,
        "effective_p50": told["kv_effective"].median(),
    }
    status, reason = _verdict(run, answered.height, told.height, int(off), row["source"], row["effective_p50"])
    if status == VERIFIED and canary in _CANARY and run.kv_unit != "bits" and run.kv_policy != "truncate_prompt":
        status, reason = UNVERIFIED, _CANARY[canary]
    return row | {"status": status, "reason": reason}


def worst(statuses: list[str]) -> str:
    """The worst of several statuses; `full` when there is none."""
    return max(statuses, key=_ORDER.index, default=FULL)


def _compressible(mode: str) -> pl.Expr:
    """Tokens that the budget is about: as the server says, else the context where only it is compressed."""
    prompt = pl.col("context_tokens") if mode == "question_agnostic" else pl.col("prompt_tokens")
    return pl.coalesce("compressible_tokens", prompt, "token_len")


def _off(run: Run, round_to: int) -> pl.Expr:
    length = _compressible(run.kv_mode).cast(pl.Float64)
    difference = pl.col("kv_effective") - run.kv_budget
    if run.is_full:
        return difference < -TOLERANCE
    if run.kv_unit == "bits":
        return difference.abs() > TOLERANCE
    allowed = pl.max_horizontal(pl.lit(TOLERANCE), round_to / length) + 1e-9
    if run.kv_unit == "fraction":
        return difference.abs() > allowed
    fits = length >= run.kv_budget  # a cap above the prompt's length keeps everything
    return (
        pl.when(fits)
        .then(difference.abs() / length > allowed)
        .otherwise((pl.col("kv_effective") - length).abs() / length > allowed)
    )


def _verdict(run: Run, n: int, told: int, off: int, source: str, effective: float | None) -> tuple[str, str]:
    if told and off > OFF_SHARE * told:
        return CONTRADICTED, (
            f"{off} of {told} responses say that another budget was applied: asked {run.kv_budget:g} "
            f"{run.kv_unit}, median answer {effective:g}"
        )
    if run.is_full:
        return FULL, "full cache: nothing to evict"
    if run.kv_apply == "none" and run.kv_policy != "truncate_prompt":
        return UNVERIFIED, "the budget is a label; nothing shows that the server applied it"
    if not told:
        return UNVERIFIED, "no response says which budget was applied; nothing shows that the server applied it"
    if source == "configured":
        return UNVERIFIED, "the budget was only configured; nothing shows that the server applied it"
    if told < (1 - OFF_SHARE) * n:
        return UNVERIFIED, f"only {told} of {n} responses say which budget was applied"
    return VERIFIED, f"{told} responses say that {effective:g} {run.kv_unit} was applied, as asked ({source})"
