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

from analyzer.read.cache_width import CacheWidth, Said
from analyzer.read.runs import Run
from analyzer.store.tables import Evidence
from kvt_async.contract.formulas.data_types import data_type, plain_name
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
    if not width.level.token_bytes or not width.full.token_bytes:
        return _by_name(evidence, width)
    for sizes in (width.level.token_bytes, width.full.token_bytes):
        if max(sizes) - min(sizes) > STEADY * max(sizes):
            reason = f"the bytes per token of one server changed from {sizes[0]:,.0f} to {sizes[-1]:,.0f} meanwhile"
            return replace(evidence, status=EvidenceStatus.UNVERIFIED, reason=reason)
    return _by_share(run, evidence, width)


def _by_share(run: Run, evidence: Evidence, width: CacheWidth) -> Evidence:
    here, full = width.level.token_bytes[0], width.full.token_bytes[0]
    share, full_bits, meant = here / full, _full_bits(width.full), _Meaning.of(width.level, run.kv_budget)
    measured = f"a token takes {here:,.0f} bytes, {full:,.0f} at full cache"
    shown = f"{measured}: {share:.3g} of it, {share * full_bits:.3g} bits per element"
    least = None if meant.bits is None else meant.bits / full_bits
    if share > 1 - UNCHANGED and (least is None or least < 1):  # full width may be asked for, under other restrictions
        status, reason = EvidenceStatus.CONTRADICTED, f"{measured}: the cache is as large as at full cache"
    elif least is None or (meant.is_least and share > least + TOLERANCE):
        status, reason = EvidenceStatus.CHANGED, f"{shown}; {meant.why}"
    elif share > least + TOLERANCE:
        status, reason = EvidenceStatus.CONTRADICTED, f"{shown}, more than {meant.words}"
    elif share < least - TOLERANCE:
        status, reason = EvidenceStatus.CHANGED, f"{shown}, less than {meant.words}"
    else:
        status, reason = EvidenceStatus.VERIFIED, f"{shown}, as {meant.words}"
    return replace(evidence, status=status, reason=reason, source="bytes per token", effective_p50=share * full_bits)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """Bits per element that a level's name means for this model; None: nobody knows. `is_least`: layers left at 16 bits
    add to it, and of how many isn't known."""

    bits: float | None
    words: str = ""
    why: str = ""
    is_least: bool = False

    @staticmethod
    def of(level: Said, asked: float) -> "_Meaning":
        """From the one name that the server says; from the bits asked for where it says none."""
        name = level.names[0] if len(level.names) == 1 else " and ".join(level.names)
        known = data_type(name) if name else None
        bits = asked if not name else known.width() if known is not None else None
        if bits is None:
            return _Meaning(None, why=f"what {name} means in bits is not known")
        wide = max(level.skipped, known.boundary_layers if known is not None else 0)
        if wide and level.layers:
            wide = min(wide, level.layers)
            bits = (wide * FULL_BITS + (level.layers - wide) * bits) / level.layers
        words = f"{name} means ({bits:.3g} bits)" if name else f"the {asked:g} bits that were asked for"
        why = f"{wide} layers stay at 16 bits, of how many is not known (set model.config)"
        return _Meaning(bits, words, why, is_least=wide > 0 and not level.layers)


def _full_bits(full: Said) -> float:
    known = data_type(full.names[0]) if len(full.names) == 1 else None
    return (known.width() if known is not None else None) or FULL_BITS


def _by_name(evidence: Evidence, width: CacheWidth) -> Evidence:
    """Where no width was read: whether the name at least differs from full cache's."""
    names, of_full = width.level.names, width.full.names
    if evidence.status != EvidenceStatus.UNVERIFIED or evidence.effective_p50 is not None or not names:
        return evidence
    name, full = " and ".join(names), " and ".join(of_full)
    if len(names) > 1:
        return replace(evidence, reason=f"the server said {name} of one level: nothing shows that one of them stayed")
    if not of_full:
        return replace(evidence, reason=f"the server says {name}; what full cache is called there is not known")
    if plain_name(name) in map(plain_name, of_full):
        return replace(evidence, reason=f"the server says {name}, as it does at full cache: nothing shows a change")
    reason = f"the server says {name}, and {full} at full cache; what {name} means in bits is not known"
    return replace(evidence, status=EvidenceStatus.CHANGED, reason=reason)
