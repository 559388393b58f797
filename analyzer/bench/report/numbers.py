"""Numbers of a bench as people read them."""

import math


def plain(value: float) -> str:
    """A number with three significant digits."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ms(value: float | None) -> str:
    return "-" if value is None else plain(value * 1000)


def share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"
