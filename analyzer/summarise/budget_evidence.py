"""Was the budget applied? One verdict per run, from what each response, its server and its prompts say about it.

The tolerance of one response is max(0.01, one rounding unit / compressible tokens), as a fraction; a run is
contradicted when more than 1% of its responses are off by more. Full cache has nothing to prove, whatever
its restrictions, unless it says that it evicted.
"""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from analyzer.read.compressions import Compressions
from analyzer.read.drift import BudgetReading, RunServer
from analyzer.read.runs import Run
from analyzer.store.tables import Evidence
from analyzer.summarise.decode_evidence import OFF_SHARE, TOLERANCE, by_compressions
from analyzer.summarise.width_evidence import by_width
from kvt_async.contract.formulas.kv_budget import convert
from kvt_async.contract.formulas.prompt_counts import Count, PromptCounts, judge
from kvt_async.contract.formulas.server_identity import Drift
from kvt_async.contract.vocabulary import CanaryVerdict, EvidenceStatus, Mode, Unit, When

_CANARY: dict[str, str] = {
    CanaryVerdict.DEAD: "the server reports the budget, but the canary found that a destructive one changes no answer",
    CanaryVerdict.INCONCLUSIVE: (
        "the server reports the budget, but the canary could not tell: full cache did not repeat itself"
    ),
}
_WHEN = {"start": "before its requests", "end": "after them"}
_NOTHING_AGAINST = (EvidenceStatus.VERIFIED, EvidenceStatus.CHANGED, EvidenceStatus.FULL)
_FROM_BEST = (
    EvidenceStatus.FULL,
    EvidenceStatus.VERIFIED,
    EvidenceStatus.CHANGED,
    EvidenceStatus.UNVERIFIED,
    EvidenceStatus.CONTRADICTED,
)
_SILENT, _UNCOUNTED = RunServer(), PromptCounts()


def prompt_counts(runs: Sequence[Run], outcomes: pl.DataFrame, *, exact: bool) -> list[PromptCounts]:
    """What the server's counts say of the prompts of each run, from `outcomes.outcomes` joined with entries.

    `exact`: prompts were counted with the server's tokenizer. Nothing is said of prompts that were cut before they were
    sent, and of those without a length of ours (own history): the manifest's lengths are not theirs.
    """
    pairs = (
        outcomes.lazy()
        .filter(~pl.col("is_failure") & pl.col("prompt_tokens").is_not_null() & pl.col("token_len").is_not_null())
        .group_by("run", "prompt_tokens", "token_len")
        .len()
        .sort("run", "prompt_tokens", "token_len")
        .collect()
    )
    of_runs: dict[int, list[Count]] = {i: [] for i in range(len(runs))}
    for run, *count in pairs.iter_rows():
        of_runs[run].append((count[0], count[1], count[2]))
    return [PromptCounts() if run.cuts_prompts else judge(of_runs[i], exact=exact) for i, run in enumerate(runs)]


def run_evidence(
    run: Run,
    outcomes: pl.DataFrame,
    server: RunServer = _SILENT,
    counts: PromptCounts = _UNCOUNTED,
    applied: Compressions | None = None,
) -> Evidence:
    """The verdict on one run, from `outcomes.outcomes` joined with entries, from what is known of its server, and from
    what the server's counts say of its prompts and its replies of compressions."""
    answered = ~pl.col("is_failure")
    telling = answered & pl.col("kv_effective").is_not_null()  # the responses that say what was applied
    figures = outcomes.select(
        n=answered.sum(),
        n_telling=telling.sum(),
        sources=pl.col("source").filter(telling).drop_nulls().unique().sort().implode(),
        effective_p50=pl.col("kv_effective").filter(telling).median(),
        n_off=_off(run, server.round_to).filter(telling).sum(),
    ).row(0, named=True)
    sources = figures["sources"]
    evidence = _by_responses(
        run,
        n_telling=figures["n_telling"],
        only_some=applied is not None,
        evidence=Evidence(
            run_id=run.run_id,
            status=EvidenceStatus.UNVERIFIED,
            source=sources[0] if len(sources) == 1 else "mixed" if sources else "none",
            reason="",
            n=figures["n"],
            n_off=figures["n_off"],
            requested=run.kv_budget,
            effective_p50=figures["effective_p50"],
        ),
    )
    judged = not (run.kv_unit == Unit.BITS or run.cuts_prompts)  # by a canary
    if evidence.status == EvidenceStatus.VERIFIED and judged and server.canary in _CANARY:
        too_short = " or its answers were too short" if run.decodes and server.canary != CanaryVerdict.DEAD else ""
        evidence = _unverified(evidence, _CANARY[server.canary] + too_short)
    evidence = by_width(run, evidence, server.width)
    if not run.is_label and evidence.source != "configured":  # there the reply has nothing to say
        evidence = by_compressions(run, evidence, applied, server.round_to)
    if evidence.status in _NOTHING_AGAINST:
        evidence = _by_readings(run, evidence, outcomes.filter(answered), server)
    if evidence.status in _NOTHING_AGAINST and counts.are_short:
        evidence = _unverified(evidence, counts.sentence)
    return evidence


def by_two_servers(evidence: Evidence, drifts: Sequence[Drift], differences: Sequence[Drift] = ()) -> Evidence:
    """The verdict where the server became another one meanwhile, or levels had different ones: what one of them showed
    says nothing of the other."""
    if evidence.status not in _NOTHING_AGAINST or not (drifts or differences):
        return evidence
    if drifts:
        return _unverified(evidence, f"the server became another one meanwhile: {drifts[0].what}")
    return _unverified(evidence, f"levels were served by different servers: {differences[0].what}")


def worst(statuses: Sequence[str]) -> str:
    """The worst of several statuses; `full` when there is none."""
    return max(map(EvidenceStatus, statuses), key=_FROM_BEST.index, default=EvidenceStatus.FULL)


def _unverified(evidence: Evidence, reason: str) -> Evidence:
    return replace(evidence, status=EvidenceStatus.UNVERIFIED, reason=reason)


def _by_readings(run: Run, evidence: Evidence, answered: pl.DataFrame, server: RunServer) -> Evidence:
    """The verdict where the server said something else of its budget before the run's requests than after them."""
    first = next((reading for reading in server.readings if reading.value is not None), None)
    other = next((reading for reading in server.readings if first is not None and reading.value != first.value), None)
    if first is None or other is None or not answered.height:
        return evidence
    words = f"{first.read_from} said {first.raw} {_WHEN[first.phase]} and {other.raw} {_WHEN[other.phase]}"
    if other.value is None:
        return _unverified(evidence, f"{words}: nothing shows that the budget stayed applied")
    if _n_off(run, _as_read(run, answered, other), server.round_to) > OFF_SHARE * answered.height:
        reason = f"{words}: another budget than asked was applied to some of the responses"
        return replace(evidence, status=EvidenceStatus.CONTRADICTED, reason=reason)
    return evidence


def _as_read(run: Run, answered: pl.DataFrame, reading: BudgetReading) -> pl.DataFrame:
    """The responses as if each of them had said what the reading shows."""
    lengths = answered.select(_compressible(run)).to_series().to_list()
    effective = [convert(reading.value or 0.0, reading.unit, run.kv_unit, length=length) for length in lengths]
    return answered.with_columns(pl.Series("kv_effective", effective, dtype=pl.Float64))


def _compressible(run: Run) -> pl.Expr:
    """Tokens that the budget is about: as the server says, else the context where only it is compressed. Of a prompt
    that was cut before it was sent the server never saw the whole, and the budget is of our count."""
    if run.cuts_prompts:
        return pl.col("token_len")
    prompt = pl.col("context_tokens") if run.kv_mode == Mode.AGNOSTIC else pl.col("prompt_tokens")
    return pl.coalesce("compressible_tokens", prompt, "token_len")


def _n_off(run: Run, telling: pl.DataFrame, round_to: int) -> int:
    return int(telling.select(_off(run, round_to).sum()).item() or 0)


def _off(run: Run, round_to: int) -> pl.Expr:
    """Whether a response says that more or less was kept than the tolerance allows."""
    length = _compressible(run).cast(pl.Float64)
    difference = pl.col("kv_effective") - run.kv_budget
    if run.decodes:
        return _off_while_generating(run, round_to)
    if run.is_full or run.is_constrained:
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


def _off_while_generating(run: Run, round_to: int) -> pl.Expr:
    """The same of the most that was held right after a compression: of a cap the cap itself, for what was below it was
    not compressed. Where the prompt is compressed too, and only its context, the question stands beside that."""
    effective = pl.col("kv_effective")
    seen = (pl.col("prompt_tokens").fill_null(pl.col("token_len")) + pl.col("completion_tokens").fill_null(0)).cast(
        pl.Float64
    )
    is_cap = run.kv_unit == Unit.TOKENS
    allowed = pl.max_horizontal(pl.lit(TOLERANCE), round_to / seen) * (seen if is_cap else 1.0) + 1e-9
    is_off = (effective - run.kv_budget).abs() > allowed
    if run.kv_when != When.BOTH:
        return is_off
    if is_cap:  # a prompt that is shorter was left whole
        prompt = pl.col("prompt_tokens").fill_null(pl.col("token_len")).cast(pl.Float64)
        is_off &= ~((prompt < run.kv_budget) & effective.is_between(prompt - allowed, run.kv_budget + allowed))
    if run.kv_mode != Mode.AGNOSTIC:
        return is_off
    prompt, context = (pl.col(name).cast(pl.Float64) for name in ("prompt_tokens", "context_tokens"))
    question = prompt - pl.coalesce("compressible_tokens", context)
    at_prompt = run.kv_budget + question if is_cap else run.kv_budget + (1 - run.kv_budget) * question / prompt
    return is_off & ((effective - at_prompt).abs() > allowed)


def _by_responses(run: Run, evidence: Evidence, n_telling: int, *, only_some: bool = False) -> Evidence:
    """The verdict from the responses alone, `n_telling` of which say which budget was applied; `only_some`: it isn't
    applied to all of them, and that is judged elsewhere."""
    effective = evidence.effective_p50
    if n_telling and evidence.n_off > OFF_SHARE * n_telling:
        reason = (
            f"{evidence.n_off} of {n_telling} responses say that another budget was applied: asked {run.kv_budget:g} "
            f"{run.kv_unit}, median answer {effective:g}"
        )
        return replace(evidence, status=EvidenceStatus.CONTRADICTED, reason=reason)
    if run.is_full:
        return replace(evidence, status=EvidenceStatus.FULL, reason="full cache: nothing to evict")
    if run.is_constrained:
        reason = "full cache under the levels' other restrictions: nothing to evict"
        return replace(evidence, status=EvidenceStatus.FULL, reason=reason)
    if run.is_label and evidence.source != "configured":
        return _unverified(evidence, "the budget is a label; nothing shows that the server applied it")
    if not n_telling:
        return _unverified(
            evidence, "no response says which budget was applied; nothing shows that the server applied it"
        )
    if evidence.source == "configured":
        return _unverified(evidence, "the budget was only configured; nothing shows that the server applied it")
    if not only_some and n_telling < (1 - OFF_SHARE) * evidence.n:
        return _unverified(evidence, f"only {n_telling} of {evidence.n} responses say which budget was applied")
    reason = f"{n_telling} responses say that {effective:g} {run.kv_unit} was applied, as asked ({evidence.source})"
    return replace(evidence, status=EvidenceStatus.VERIFIED, reason=reason)
