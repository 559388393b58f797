"""Was a bit width applied? From the name of the cache's data type and from the bytes that a token takes.

The bytes per token at a level over those at full cache are the share that the level keeps, scales and layers left at 16
bits included. It counts before any name does, because a name is what was asked for:

    above 0.98                             contradicted: a token takes what it takes at full cache
    within 0.03 of what the name means     verified
    over 0.03 above it                     contradicted
    else, and where nobody knows what the name means for this model: verified as changed, with the width measured

Without bytes, a name whose width nobody knows is verified as changed where full cache has another name. What full cache
is called says how wide it is; 16 bits where that is not known.
"""

from dataclasses import dataclass, replace

from analyzer.read.cache_width import CacheWidth
from analyzer.read.runs import Run
from analyzer.store.tables import Evidence
from kvt_async.contract.formulas.data_types import DataType, data_type, plain_name
from kvt_async.contract.formulas.kv_budget import FULL_BITS
from kvt_async.contract.vocabulary import EvidenceStatus

UNCHANGED = 0.02  # a share nearer to full cache's than this shows no change
TOLERANCE = 0.03  # of full cache's bytes: how far a share may lie from what a name means
STEADY = 0.02  # readings of one server that differ by less are one


def by_width(run: Run, evidence: Evidence, width: CacheWidth | None) -> Evidence:
    """The verdict on a run in bits with what its server says of its cache's width; the one given where that adds
    nothing. What replies contradict stays contradicted."""
    if width is None or run.is_label or evidence.status == EvidenceStatus.CONTRADICTED:
        return evidence
    if not width.token_bytes or not width.full_token_bytes:
        return _by_name(evidence, width)
    here, full = width.token_bytes[0], width.full_token_bytes[0]
    for sizes in (width.token_bytes, width.full_token_bytes):
        if max(sizes) - min(sizes) > STEADY * max(sizes):
            reason = f"the bytes per token of one server changed from {sizes[0]:,.0f} to {sizes[-1]:,.0f} meanwhile"
            return replace(evidence, status=EvidenceStatus.UNVERIFIED, reason=reason)
    return _by_share(run, evidence, width, here / full, f"a token takes {here:,.0f} bytes, {full:,.0f} at full cache")


def _by_share(run: Run, evidence: Evidence, width: CacheWidth, share: float, measured: str) -> Evidence:
    full_bits = _full_bits(width)
    meant = _Meaning.of(width, run.kv_budget)
    shown = f"{measured}: {share:.3g} of it, {share * full_bits:.3g} bits per element"
    if share > 1 - UNCHANGED:
        status, reason = EvidenceStatus.CONTRADICTED, f"{measured}: the cache is as large as at full cache"
    elif meant.bits is None:
        status, reason = EvidenceStatus.CHANGED, f"{shown}; {meant.why}"
    elif share > meant.bits / full_bits + TOLERANCE:
        if meant.is_least:
            status, reason = EvidenceStatus.CHANGED, f"{shown}; {meant.why}"
        else:
            status, reason = EvidenceStatus.CONTRADICTED, f"{shown}, more than {meant.words}"
    elif share < meant.bits / full_bits - TOLERANCE:
        status, reason = EvidenceStatus.CHANGED, f"{shown}, less than {meant.words}"
    else:
        status, reason = EvidenceStatus.VERIFIED, f"{shown}, as {meant.words}"
    source = "bytes per token"
    return replace(evidence, status=status, reason=reason, source=source, effective_p50=share * full_bits)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """Bits per element that a level's name means; None: nobody knows. `is_least`: layers left at 16 bits add to it, and
    how many of all they are isn't known."""

    bits: float | None
    words: str = ""
    why: str = ""
    is_least: bool = False

    @staticmethod
    def of(width: CacheWidth, asked: float) -> "_Meaning":
        """From the one name that the server says; from the bits asked for where it says none."""
        if not width.names:
            return _Meaning(asked, f"the {asked:g} bits that were asked for")
        name = width.names[0]
        known: DataType | None = data_type(name)
        bits = known.width() if known is not None and len(width.names) == 1 else None
        if known is None or bits is None:
            return _Meaning(None, why=f"what {' and '.join(width.names)} means in bits is not known")
        why = f"{name} leaves {known.boundary_layers} layers at 16 bits, of how many is not known"
        return _Meaning(bits, f"{name} means ({bits:.3g} bits)", why, is_least=known.boundary_layers > 0)


def _full_bits(width: CacheWidth) -> float:
    known = data_type(width.full_names[0]) if len(width.full_names) == 1 else None
    return (known.width() if known is not None else None) or FULL_BITS


def _by_name(evidence: Evidence, width: CacheWidth) -> Evidence:
    """Where no width was read: whether the name at least differs from full cache's."""
    if evidence.status != EvidenceStatus.UNVERIFIED or evidence.effective_p50 is not None or not width.names:
        return evidence
    name, full = " and ".join(width.names), " and ".join(width.full_names)
    if len(width.names) > 1:
        return replace(evidence, reason=f"the server said {name} of one level: nothing shows that one of them stayed")
    if not width.full_names:
        return replace(evidence, reason=f"the server says {name}; what full cache is called there is not known")
    if plain_name(name) in map(plain_name, width.full_names):
        return replace(evidence, reason=f"the server says {name}, as it does at full cache: nothing shows a change")
    reason = f"the server says {name}, and {full} at full cache; what {name} means in bits is not known"
    return replace(evidence, status=EvidenceStatus.CHANGED, reason=reason)
