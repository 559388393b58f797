"""Was a budget applied while answers were generated? Judged over the answers whose cache was compressed, if they are
many enough: a budget that hardly any answer reaches has shown nothing, however the answers score."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analyzer.read.compressions import Compressions
from analyzer.read.runs import Run
from analyzer.results.number_format import percent, plural
from analyzer.stats.transition import BudgetTest, Claims
from analyzer.store.tables import Evidence
from kvt_async.contract.formulas.decode_budget import interval_of
from kvt_async.contract.vocabulary import EvidenceStatus, Unit

FEWEST_APPLIED = 0.2  # of the answers: below it nothing is shown
SAYS_HOW_OFTEN = 0.99  # of the answers have to
TOLERANCE = 0.01  # of the tokens seen, where blocks are no larger
OFF_SHARE = 0.01  # of the answers may be off by more
NO_EVIDENCE = "no evidence"


def has_evidence(applied: Compressions | None) -> bool:
    """Whether enough answers had their cache compressed, as far as replies say; true of other budgets, and where
    replies say nothing, which is another fault."""
    return applied is None or not applied.n_said or applied.share >= FEWEST_APPLIED


def by_compressions(run: Run, evidence: Evidence, applied: Compressions | None, round_to: int = 1) -> Evidence:
    """The verdict on a run with what its replies say of compressions; the one given where it evicts no later than when
    the prompt has been read. What replies contradict stays contradicted."""
    if applied is None or evidence.status == EvidenceStatus.CONTRADICTED:
        return evidence
    if (excess := _excess(run, applied, round_to)) is not None:
        return replace(evidence, status=EvidenceStatus.CONTRADICTED, reason=excess)
    if not has_evidence(applied):
        return _unverified(evidence, f"{NO_EVIDENCE}: {applied_in(applied)}, fewer than {percent(FEWEST_APPLIED)}")
    if applied.n_said < SAYS_HOW_OFTEN * evidence.n:
        said = "no reply says" if not applied.n_said else f"only {applied.n_said:,} of {evidence.n:,} replies say"
        return _unverified(evidence, f"{said} how often the cache was compressed while the answer was generated")
    if applied.n_shown < SAYS_HOW_OFTEN * applied.n_applied:
        compressed = plural(applied.n_applied, "answer")
        return _unverified(
            evidence,
            f"the cache was compressed in {compressed}, and {applied.n_shown:,} of their replies say how much was left",
        )
    if evidence.status == EvidenceStatus.VERIFIED and applied.share < 1:
        return replace(evidence, reason=f"{evidence.reason}; {applied_in(applied)}")
    return evidence


def _excess(run: Run, applied: Compressions, round_to: int) -> str | None:
    """What contradicts a budget beside the size after compressions: more was held, or is left at the end, than one
    interval between them adds to it. None: nothing does, or the config names no interval."""
    interval = interval_of(json.loads(run.kv_params_json))
    if interval is None:
        return None
    seen = applied.prompt + applied.completion
    cap = np.full(seen.shape, run.kv_budget) if run.kv_unit == Unit.TOKENS else run.kv_budget * seen
    most = cap + interval
    allowed = np.maximum(round_to, TOLERANCE * seen) + 1e-9
    for held, limit, words in (
        (applied.kept, most, "are left at the end of"),
        (applied.peak, np.maximum(most, applied.prompt + interval), "were held during"),
    ):
        over = applied.applied & (held > limit + allowed)
        if over.sum() > OFF_SHARE * applied.n_applied:
            worst = np.unravel_index(np.argmax(np.where(over, held - limit, -np.inf)), held.shape)
            return (
                f"{int(over.sum()):,} of {applied.n_applied:,} answers whose cache was compressed held more than the "
                f"budget and an interval of {interval} allow: {held[worst]:,.0f} tokens {words} one of them, and at "
                f"most {limit[worst]:,.0f} can be"
            )
    return None


def applied_in(applied: Compressions) -> str:
    """In how many answers the cache was compressed, in words."""
    return f"the cache was compressed in {applied.n_applied:,} of {applied.n_said:,} answers ({percent(applied.share)})"


def with_evidence(done: Claims, tests: Sequence[BudgetTest], shown: Sequence[bool]) -> Claims:
    """The same claims, safe no further down than to a budget that was applied to enough answers (`shown`, in the order
    of the tests, from the highest budget down). Claims that are left out take no others with them."""
    last = max((n for n in range(done.n_safe) if shown[n]), default=None)
    if last is None:
        return replace(done, safe=None, n_safe=0)
    return replace(done, safe=tests[last].budget, n_safe=last + 1)


def _unverified(evidence: Evidence, reason: str) -> Evidence:
    return replace(evidence, status=EvidenceStatus.UNVERIFIED, reason=reason)
