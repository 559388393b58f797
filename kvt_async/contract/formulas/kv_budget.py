"""One algebra of KV budgets. Pure numbers: every spelling of a budget goes through the fraction kept.

    fraction kept      f        0.2    of the compressible tokens' cache (of its bytes, for bit widths)
    compression ratio  1 - f    0.8    the fraction REMOVED: kvpress, papers
    divisor            1 / f    5      "5x": vllm-kvcompress's experiments, KV compression papers
    tokens kept        n        200    of a prompt of 1,000; rounded as the server rounds
    bits per element   b        8      of 16: half the bytes, all the tokens
    bytes              B               tokens kept x bytes per token (kv_bytes.py)

A server that keeps whole blocks rounds tokens to `round_to`; the budget that results is the effective one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kvt_async.contract.vocabulary import Spelling, Unit

Rounding = Literal["up", "down", "nearest"]
FULL_BITS = 16.0  # bits per element of an uncompressed cache, where nothing else is said


def n_kept(length: int, fraction: float) -> int:
    """Tokens kept of `length`, before blocks: kvpress' expression, whose float rounding can give one less than L * f.

    Runner and server count by it, so that one budget is one count on both sides.
    """
    return max(1, int(length * (1 - (1 - fraction))))


def in_blocks(tokens: int, round_to: int = 1, rounding: Rounding = "up") -> int:
    """`tokens` (at least 1) as whole blocks of `round_to`: at least one block."""
    exact = tokens / round_to
    blocks = math.ceil(exact) if rounding == "up" else math.floor(exact if rounding == "down" else exact + 0.5)
    return max(1, blocks) * round_to


def tokens_kept(budget: float, unit: str, length: int, *, round_to: int = 1, rounding: Rounding = "up") -> int:
    """Tokens kept of `length` compressible ones at a budget in `unit` (fraction | tokens | bits), rounding applied.

    Never more than `length`; a bit width keeps every token.
    """
    if unit == Unit.BITS:
        return length
    wanted = n_kept(length, budget) if unit == Unit.FRACTION else max(1, int(budget))
    return min(length, in_blocks(wanted, round_to, rounding)) if wanted < length else length


def convert(
    value: float,
    unit: str,
    wanted: str,
    *,
    length: float | None = None,
    full_bits: float = FULL_BITS,
    token_bytes: float | None = None,
) -> float | None:
    """A budget in another unit; None where that takes what isn't known (`length` in tokens, `token_bytes`) or where the
    value is no budget (a divisor of 0, more removed than there is).

    Units are the names of Spelling. Not rounded, and not cut at 1: what a server reports is shown as it is.
    """
    if unit == wanted:
        return value
    whole = _Whole(length, full_bits, token_bytes)
    fraction = _ALGEBRA[unit][0](value, whole)
    if fraction is None or fraction < 0:
        return None
    return _ALGEBRA[wanted][1](fraction, whole)


@dataclass(frozen=True, slots=True)
class _Whole:
    """What is known of the full cache that a budget is a part of."""

    tokens: float | None
    bits: float
    token_bytes: float | None

    @property
    def n_bytes(self) -> float | None:
        return self.tokens * self.token_bytes if self.tokens and self.token_bytes else None


_Step = Callable[[float, _Whole], float | None]
# Spelling -> (to the fraction kept, from the fraction kept).
_ALGEBRA: Mapping[str, tuple[_Step, _Step]] = {
    Spelling.FRACTION: (lambda value, _: value, lambda f, _: f),
    Spelling.COMPRESSION_RATIO: (lambda value, _: 1 - value, lambda f, _: float(f"{1 - f:.12g}")),
    Spelling.DIVISOR: (lambda value, _: 1 / value if value > 0 else None, lambda f, _: 1 / f if f > 0 else None),
    Spelling.TOKENS: (
        lambda value, whole: value / whole.tokens if whole.tokens else None,
        lambda f, whole: f * whole.tokens if whole.tokens else None,
    ),
    Spelling.BITS: (lambda value, whole: value / whole.bits, lambda f, whole: f * whole.bits),
    Spelling.BYTES: (
        lambda value, whole: value / whole.n_bytes if whole.n_bytes else None,
        lambda f, whole: f * whole.n_bytes if whole.n_bytes else None,
    ),
}
