"""A chart drawn to the size of a page's column: total width and height, in inches. Pure but for the drawing."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analyzer.charts.picture_files import svg_of
from analyzer.charts.style import ChartSize
from kvt_async.contract.errors import ConfigError

PIXELS = 96  # of a drawing in an inch: letters of 11 pixels are 8.25 points on paper
POINTS = 72  # in an inch: what PDF measures in
PNG_PPI = 300
LEAST, MOST = 1.5, 40.0  # inches
NARROW = 460  # pixels of the whole: below, the charts' form for phones
TRIES = 4
UNITS = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72.27, "px": 1 / PIXELS}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(in|cm|mm|pt|px)?")
_HEAD = re.compile(r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)" viewBox="([\d. -]+)"')

Spec = dict[str, Any]
Draw = Callable[[ChartSize], Spec]


def inches(text: str, where: str) -> float:
    """A length such as 3.3in, 84mm, 8.4cm, 240pt (TeX's) or 320px (of a 96th inch); a bare number is inches.

    Raises ConfigError for what is no length, or one that no page has."""
    match = _LENGTH.fullmatch(text.strip().lower())
    value = float(match[1]) * UNITS[match[2] or "in"] if match else 0.0
    if not LEAST <= value <= MOST:
        raise ConfigError(
            f"{text!r} is no width or height from {LEAST:g} to {MOST:g} inches", where=where, do="Write 3.3in or 84mm."
        )
    return value


@dataclass(frozen=True)
class PaperSize:
    """Total width and height in inches; height None: as high as the chart is by itself."""

    width: float = 6.0
    height: float | None = None

    def svg(self, draw: Draw) -> str:
        """The chart as SVG of this size. Raises ConfigError where it can't be drawn that low."""
        width = self.width * PIXELS
        size = ChartSize(max(80, round(width - 70)), narrow=width < NARROW)
        spec = draw(size)
        svg = svg_of(spec)
        for _ in range(TRIES):  # what stands beside a chart depends on its labels alone
            over = drawn_size(svg)[0] - width
            if abs(over) < 1:
                break
            size = ChartSize(max(60, round(size.width - over)), narrow=size.narrow)
            spec = draw(size)
            svg = svg_of(spec)
        if self.height is not None:
            svg = self._lowered(spec, svg, self.height * PIXELS)
        return svg

    def _lowered(self, spec: Spec, svg: str, height: float) -> str:
        """The same with every panel stretched or lowered alike, so that the whole has this height."""
        factor, now = 1.0, drawn_size(svg)[1]
        panels = now - drawn_size(svg_of(stretched(spec, 0.5)))[1]  # half of what can be stretched
        for _ in range(TRIES):
            if abs(now - height) < 1 or panels < 1:
                break
            factor += (height - now) / (2 * panels)
            if factor < 0.2:
                break
            svg = svg_of(stretched(spec, factor))
            now = drawn_size(svg)[1]
        if abs(now - height) > 4:
            raise ConfigError(
                f"a chart of this width can't be {height / PIXELS:.2f} inches high; by itself it has "
                f"{drawn_size(svg_of(spec))[1] / PIXELS:.2f}",
                where="--height",
                do="Leave --height out, or choose one nearer to that.",
            )
        return svg


def stretched(spec: Any, factor: float) -> Any:
    """The spec with the height of every panel times `factor`; panels with a step for each row keep it."""
    if isinstance(spec, list):
        return [stretched(part, factor) for part in spec]
    if not isinstance(spec, dict):
        return spec
    panel = "layer" in spec or ("mark" in spec and "encoding" in spec)
    kept = ("datasets", "config", "data", "encoding", "usermeta")
    return {
        name: round(value * factor)
        if panel and name == "height" and isinstance(value, int | float)
        else value
        if name in kept
        else stretched(value, factor)
        for name, value in spec.items()
    }


def drawn_size(svg: str) -> tuple[float, float]:
    """Width and height of a drawing in pixels."""
    head = _HEAD.search(svg)
    assert head is not None, "Vega writes both"
    return float(head[2]), float(head[3])


def resized(svg: str, width: float, unit: str = "") -> str:
    """The drawing scaled to a width, in its proportions."""
    old_width, old_height = drawn_size(svg)
    height = old_height * width / old_width
    return _HEAD.sub(rf'\1 width="{width:.6g}{unit}" height="{height:.6g}{unit}" viewBox="\4"', svg, count=1)
