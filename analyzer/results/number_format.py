"""How a number, a budget or a list is written, everywhere the same; no sentences. Pure; None reads as an en dash."""

import math
from decimal import ROUND_HALF_UP, Decimal

from kvt_async.contract.vocabulary import Unit

NOTHING = "–"
UNITS: dict[str, str] = {Unit.FRACTION: "", Unit.TOKENS: " tokens", Unit.BITS: " bits"}


def number(value: float | None, digits: int = 2) -> str:
    """Fixed digits, a real minus sign, and no minus zero."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = rounded(value, digits)
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def rounded(value: float, digits: int) -> str:
    """A finite number with fixed digits, halves away from zero. Python rounds what a number is in binary, so that 0.085
    became 0.09 and, as a share, 8%: two figures of one row that contradict each other. Twelve digits are looked at, for
    what lies beyond them is noise of the sum that made the number."""
    return f"{Decimal(f'{value:.12g}').quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"


def signed(value: float | None, digits: int = 2) -> str:
    text = number(value, digits)
    return text if value is None or text.startswith("−") or float(text) == 0 else f"+{text}"


def interval(mean: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """`0.95 [0.92, 0.97]`: a value and its 95% interval."""
    if mean is None:
        return NOTHING
    if low is None or high is None:
        return number(mean, digits)
    return f"{number(mean, digits)} [{number(low, digits)}, {number(high, digits)}]"


def percent(value: float | None, digits: int = 0) -> str:
    """A share in percent; what is neither 0 nor 100% never reads as such."""
    if value is None:
        return NOTHING
    if value in (0, 1):
        return f"{100 * value:.0f}%"
    text = rounded(100 * value, digits)
    if float(text) == 0 and value > 0:
        return f"<{10**-digits:g}%"
    if float(text) == 100 and value < 1:
        return f">{100 - 10**-digits:g}%"
    return f"{text}%"


def loss_size(size: float, kind: str = "absolute") -> str:
    """A margin or a guard in words: `0.05`, or `10% of full cache's accuracy` where it is relative to that."""
    return number(size) if kind == "absolute" else f"{100 * size:.3g}% of full cache's accuracy"


def seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    if value >= 100:
        return f"{value:,.0f} s"
    if value >= 1:
        return f"{value:.2f} s"
    milli = 1000 * value
    return f"{milli:.0f} ms" if milli >= 100 else f"{milli:.1f} ms" if milli >= 1 else f"{1000 * milli:.0f} µs"


def amount(value: float | None) -> str:
    """Bytes, in decimal units."""
    if value is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def gib(value: float | None) -> str:
    """GiB to three significant digits, small ones as MiB."""
    if value is None:
        return NOTHING
    return f"{value:,.3g} GiB" if abs(value) >= 0.1 or value == 0 else f"{1024 * value:,.3g} MiB"


def count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def budget(value: float | None, unit: str = Unit.FRACTION) -> str:
    """A budget as people write it: 0.3, 256 tokens, 4 bits, full cache."""
    if value is None:
        return NOTHING
    if unit == Unit.FRACTION and value == 1:
        return "full cache"
    return f"{value:,.6g}{UNITS.get(unit, f' {unit}')}"


def cache_share(value: float | None, unit: str = Unit.FRACTION) -> str:
    """A budget as people read it: 30% (of the cache), 256 tokens, 4 bits, full cache."""
    if value is None or unit != Unit.FRACTION or value == 1:
        return budget(value, unit)
    return f"{100 * value:.6g}%"


def cache_kept(value: float | None, unit: str = Unit.FRACTION) -> str:
    """The same with what it is a share or a number of: 30% of the cache kept."""
    if value is None or (unit == Unit.FRACTION and value == 1):
        return budget(value, unit)
    of = {Unit.FRACTION: " of the cache kept", Unit.TOKENS: " kept", Unit.BITS: " per element of the cache"}
    return cache_share(value, unit) + of.get(Unit(unit), "")


def change(new: float | None, old: float | None) -> str:
    """Relative change, e.g. −70%."""
    if new is None or old is None or old == 0:
        return NOTHING
    ratio = new / old - 1
    text = f"{100 * ratio:+.0f}%"
    return "±0%" if text in ("+0%", "-0%") else text.replace("-", "−")


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(items: list[str]) -> str:
    """Joins items as in `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
