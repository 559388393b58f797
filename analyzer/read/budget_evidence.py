"""Was the budget applied? One verdict per run from what each response said about it (SPEC 6).

The tolerance of one response is max(0.01, one rounding unit / compressible tokens), as a fraction; a run is
contradicted when more than 1% of its responses are off by more. Full cache has nothing to prove, unless it says that
it evicted.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from analyzer.read.drift import Look, Served
from analyzer.read.runs import Run
from kvt_async.contract.formulas.kv_budget import convert
from kvt_async.contract.formulas.prompt_counts import PromptCounts, judge
from kvt_async.contract.formulas.server_identity import Drift
from kvt_async.contract.vocabulary import CanaryVerdict, Mode, Unit
from kvt_async.contract.vocabulary import EvidenceStatus as Status

TOLERANCE = 0.01
OFF_SHARE = 0.01
_CANARY: dict[str, str] = {
    CanaryVerdict.DEAD: "the server reports the budget, but the canary found that a destructive one changes no answer",
    CanaryVerdict.INCONCLUSIVE: "the server reports the budget, but the canary could not tell: full cache did not "
    "repeat itself",
}
_WHEN = {"start": "before its requests", "end": "after them"}
_CUT = "truncate_prompt"  # cut before it is sent: nothing for a canary to judge
_SILENT, _UNCOUNTED = Served(), PromptCounts()
_ORDER = (Status.FULL, Status.VERIFIED, Status.UNVERIFIED, Status.CONTRADICTED)


def kept_fraction(unit: str) -> pl.Expr:
    """Effective budget as a fraction of the prompt; null without evidence and for bit widths."""
    effective, length = pl.col("kv_effective"), pl.col("prompt_tokens").fill_null(pl.col("token_len"))
    if unit == Unit.TOKENS:
        return pl.min_horizontal(effective / length, pl.lit(1.0))
    return effective if unit == Unit.FRACTION else pl.lit(None, dtype=pl.Float64)


def kept_tokens(unit: str) -> pl.Expr:
    """Tokens kept: as the server counted them, else from the effective budget; null without evidence."""
    length = pl.col("prompt_tokens").fill_null(pl.col("token_len"))
    effective = pl.col("kv_effective")
    if unit == Unit.FRACTION:
        return pl.coalesce("kept_tokens", effective * length)
    return pl.coalesce("kept_tokens", effective if unit == Unit.TOKENS else pl.lit(None, dtype=pl.Float64))


def prompt_counts(run: Run, outcomes: pl.DataFrame, *, exact: bool) -> PromptCounts:
    """What the server's counts of a run's prompts say, from `outcomes.outcomes` joined with entries.

    `exact`: prompts were counted with the server's tokenizer. Of prompts that were cut before they were sent nothing is
    said: the manifest's lengths are not theirs.
    """
    if run.kv_policy == _CUT:
        return PromptCounts()
    pairs = (
        outcomes.filter(~pl.col("is_failure") & pl.col("prompt_tokens").is_not_null())
        .group_by("prompt_tokens", "token_len")
        .len()
        .sort("prompt_tokens", "token_len")
    )
    return judge(pairs.iter_rows(), exact=exact)


def run_evidence(
    run: Run, outcomes: pl.DataFrame, server: Served = _SILENT, counts: PromptCounts = _UNCOUNTED
) -> dict[str, Any]:
    """A run_evidence row (without fingerprint) from `outcomes.outcomes` joined with entries, from its server, and from
    what the server's counts say of its prompts."""
    answered = outcomes.filter(~pl.col("is_failure"))
    told = answered.filter(pl.col("kv_effective").is_not_null())
    sources = sorted(told["source"].drop_nulls().unique().to_list())
    off = _n_off(run, told, server.round_to)
    row: dict[str, Any] = {
        "run_id": run.run_id,
        "source": sources[0] if len(sources) == 1 else "mixed" if sources else "none",
        "n": answered.height,
        "n_off": off,
        "requested": run.kv_budget,
        "effective_p50": told["kv_effective"].median(),
    }
    status, reason = _verdict(run, answered.height, told.height, off, row["source"], row["effective_p50"])
    judged = run.kv_unit != Unit.BITS and run.kv_policy != _CUT  # by a canary
    if judged and status == Status.VERIFIED and server.canary in _CANARY:
        status, reason = Status.UNVERIFIED, _CANARY[server.canary]
    if status in (Status.VERIFIED, Status.FULL):
        status, reason = _looked_at(run, answered, server) or (status, reason)
    if status in (Status.VERIFIED, Status.FULL) and counts.are_short:
        status, reason = Status.UNVERIFIED, counts.sentence
    return row | {"status": status, "reason": reason}


def by_two_servers(row: dict[str, Any], drifts: Sequence[Drift], differences: Sequence[Drift] = ()) -> dict[str, Any]:
    """The row where the server became another one meanwhile, or levels had different ones: what one of them showed says
    nothing of the other."""
    if row["status"] not in (Status.VERIFIED, Status.FULL) or not (drifts or differences):
        return row
    reason = (
        f"the server became another one meanwhile: {drifts[0].what}"
        if drifts
        else f"levels were served by different servers: {differences[0].what}"
    )
    return row | {"status": Status.UNVERIFIED, "reason": reason}


def worst(statuses: list[str]) -> str:
    """The worst of several statuses; `full` when there is none."""
    return max(statuses, key=_ORDER.index, default=Status.FULL)


def _looked_at(run: Run, answered: pl.DataFrame, server: Served) -> tuple[str, str] | None:
    """(status, reason) where the server said something else at another look; None: every look says the same."""
    first = next((look for look in server.looks if look.value is not None), None)
    other = next((look for look in server.looks if first is not None and look.value != first.value), None)
    if first is None or other is None or not answered.height:
        return None
    words = f"{first.read_from} said {first.raw} {_WHEN[first.phase]} and {other.raw} {_WHEN[other.phase]}"
    if other.value is None:
        return Status.UNVERIFIED, f"{words}: nothing shows that the budget stayed applied"
    if _n_off(run, _as_told(run, answered, other), server.round_to) > OFF_SHARE * answered.height:
        return Status.CONTRADICTED, f"{words}: another budget than asked was applied to some of the responses"
    return None


def _as_told(run: Run, answered: pl.DataFrame, look: Look) -> pl.DataFrame:
    """The responses as if each of them had said what the look shows."""
    lengths = answered.select(_compressible(run.kv_mode)).to_series().to_list()
    effective = [convert(look.value or 0.0, look.unit, run.kv_unit, length=length) for length in lengths]
    return answered.with_columns(pl.Series("kv_effective", effective, dtype=pl.Float64))


def _compressible(mode: str) -> pl.Expr:
    """Tokens that the budget is about: as the server says, else the context where only it is compressed."""
    prompt = pl.col("context_tokens") if mode == Mode.AGNOSTIC else pl.col("prompt_tokens")
    return pl.coalesce("compressible_tokens", prompt, "token_len")


def _n_off(run: Run, told: pl.DataFrame, round_to: int) -> int:
    return int(told.select(_off(run, round_to).sum()).item() or 0)


def _off(run: Run, round_to: int) -> pl.Expr:
    length = _compressible(run.kv_mode).cast(pl.Float64)
    difference = pl.col("kv_effective") - run.kv_budget
    if run.is_full:
        return difference < -TOLERANCE
    if run.kv_unit == Unit.BITS:
        return difference.abs() > TOLERANCE
    allowed = pl.max_horizontal(pl.lit(TOLERANCE), round_to / length) + 1e-9
    if run.kv_unit == Unit.FRACTION:
        return difference.abs() > allowed
    fits = length >= run.kv_budget  # a cap above the prompt's length keeps everything
    return (
        pl.when(fits)
        .then(difference.abs() / length > allowed)
        .otherwise((pl.col("kv_effective") - length).abs() / length > allowed)
    )


def _verdict(run: Run, n: int, told: int, off: int, source: str, effective: float | None) -> tuple[str, str]:
    if told and off > OFF_SHARE * told:
        return Status.CONTRADICTED, (
            f"{off} of {told} responses say that another budget was applied: asked {run.kv_budget:g} "
            f"{run.kv_unit}, median answer {effective:g}"
        )
    if run.is_full:
        return Status.FULL, "full cache: nothing to evict"
    if run.kv_apply == "none" and run.kv_policy != _CUT:
        return Status.UNVERIFIED, "the budget is a label; nothing shows that the server applied it"
    if not told:
        return Status.UNVERIFIED, "no response says which budget was applied; nothing shows that the server applied it"
    if source == "configured":
        return Status.UNVERIFIED, "the budget was only configured; nothing shows that the server applied it"
    if told < (1 - OFF_SHARE) * n:
        return Status.UNVERIFIED, f"only {told} of {n} responses say which budget was applied"
    return Status.VERIFIED, f"{told} responses say that {effective:g} {run.kv_unit} was applied, as asked ({source})"
