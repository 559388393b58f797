"""Was a budget applied while answers were generated? Judged over the answers whose cache was compressed, if they are
many enough: a budget that hardly any answer reaches has shown nothing, however the answers score."""

from collections.abc import Sequence
from dataclasses import replace

from analyzer.read.compressions import Compressions
from analyzer.results.number_format import percent
from analyzer.stats.transition import BudgetTest, Claims
from analyzer.store.tables import Evidence
from kvt_async.contract.vocabulary import EvidenceStatus

FEWEST_APPLIED = 0.2  # of the answers: below it nothing is shown
SAYS_HOW_OFTEN = 0.99  # of the answers have to
NO_EVIDENCE = "no evidence"


def has_evidence(applied: Compressions | None) -> bool:
    """Whether enough answers had their cache compressed, as far as replies say; true of other budgets, and where
    replies say nothing, which is another fault."""
    return applied is None or not applied.n_said or applied.share >= FEWEST_APPLIED


def by_compressions(evidence: Evidence, applied: Compressions | None) -> Evidence:
    """The verdict on a run with what its replies say of compressions; the one given where it evicts no later than when
    the prompt has been read. What replies contradict stays contradicted."""
    if applied is None or evidence.status == EvidenceStatus.CONTRADICTED:
        return evidence
    if not has_evidence(applied):
        return _unverified(evidence, f"{NO_EVIDENCE}: {applied_in(applied)}, fewer than {percent(FEWEST_APPLIED)}")
    if applied.n_said < SAYS_HOW_OFTEN * evidence.n:
        said = "no reply says" if not applied.n_said else f"only {applied.n_said:,} of {evidence.n:,} replies say"
        return _unverified(evidence, f"{said} how often the cache was compressed while the answer was generated")
    if evidence.status == EvidenceStatus.VERIFIED and applied.share < 1:
        return replace(evidence, reason=f"{evidence.reason}; {applied_in(applied)}")
    return evidence


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
