"""The budget axis that charts share: what stands where, what was asked and what was applied.

`x` is the position: the budget itself where fractions lie far enough apart, on a linear or logarithmic scale; else the
rank from full cache down, evenly spaced, as for token caps and bit widths, which have no common scale with full cache.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import log10

from analyzer.read.runs import Run
from analyzer.results.number_format import cache_share, percent
from analyzer.results.results import Results
from kvt_async.contract.vocabulary import EvidenceStatus, Unit

LOG_BELOW = 0.03  # fractions under this would pile up at the end of a linear axis
CLOSEST = 0.03  # of the axis: two budgets nearer than this can't be told apart, so all are spaced evenly
SAME = 0.005  # an applied fraction within this of the one asked is the same
SAME_BITS = 0.05  # an applied width within this of the one asked is the same
SHOWN = (EvidenceStatus.VERIFIED, EvidenceStatus.CHANGED)  # of a level whose applied budget is drawn
LABEL_PX = 7.3  # width of a letter of 100% at 11 px


@dataclass(frozen=True)
class BudgetAxis:
    """Positions (from full cache down), what stands at them, and how they are scaled."""

    values: tuple[float, ...]
    labels: tuple[str, ...]
    scale: str  # linear | log | rank
    title: str
    applied: tuple[str, ...] = ()  # below each label: what the server applied, where it isn't what was asked
    applied_title: str = ""

    @property
    def reverse(self) -> bool:
        return self.scale != "rank"

    def at(self, value: float, *, is_full: bool = False) -> float:
        if self.scale != "rank":
            return value
        # As a number, as a share of the cache, or with its unit where levels have several.
        names = (f"{value:,.6g}", *(cache_share(value, unit) for unit in Unit))
        return 0.0 if is_full else next((float(i) for i, label in enumerate(self.labels) if label in names), 0.0)

    @property
    def domain(self) -> tuple[float, float]:
        low, high = min(self.values), max(self.values)
        if self.scale == "log":
            return low / 1.12, high * 1.04
        pad = 0.025 * (high - low) if high > low else 0.5
        return low - pad, high + pad

    def share(self, x: float) -> float:
        """Where a position lies between the axis' left end (0) and its right end (1)."""
        left, right = self.edges
        if self.scale == "log":
            left, right, x = log10(left), log10(right), log10(x)
        return (x - left) / (right - left)

    def middle(self, a: float, b: float) -> float:
        """The position halfway between two, as they are drawn."""
        return 10 ** ((log10(a) + log10(b)) / 2) if self.scale == "log" else (a + b) / 2

    def labelled(self, width: float) -> list[int]:
        """Which labels fit side by side on `width` pixels: both ends, then what lies furthest from its neighbours."""
        at = [self.share(v) * width for v in self.values]
        half = [
            max(len(a), len(b)) * LABEL_PX / 2 for a, b in zip(self.labels, self.applied or self.labels, strict=True)
        ]

        def room(i: int, others: list[int]) -> float:
            return min(abs(at[i] - at[k]) - half[i] - half[k] for k in others)

        shown = [0] if len(at) == 1 else [0, len(at) - 1]
        rest = [i for i in range(len(at)) if i not in shown]
        while rest:
            best = max(rest, key=lambda i: (room(i, shown), -i))
            if room(best, shown) < 4:
                break
            shown.append(best)
            rest.remove(best)
        return sorted(shown)

    @property
    def edges(self) -> tuple[float, float]:
        """Left and right end of the axis: full cache stands left."""
        low, high = self.domain
        return (high, low) if self.reverse else (low, high)


def budget_axis(results: Results) -> BudgetAxis:
    levels = {(r.kv_unit, r.kv_budget) for r in results.runs if r.is_level}
    if len({unit for unit, _ in levels}) > 1:
        order = sorted(levels, key=lambda level: ([*Unit].index(Unit(level[0])), -level[1]))
        labels = ("full", *(cache_share(budget, unit) for unit, budget in order))
        places = tuple(map(float, range(len(labels))))
        return BudgetAxis(places, labels, "rank", "Kept, as asked (units side by side)", ("",) * len(labels))
    below = sorted({budget for _, budget in levels}, reverse=True)
    if results.unit != Unit.FRACTION:
        labels = ("full", *(f"{b:,.6g}" for b in below))
        is_cap = results.unit == Unit.TOKENS
        name = "Tokens kept (cap, as asked)" if is_cap else "Bits per element of the KV cache (as asked)"
        return BudgetAxis(
            tuple(map(float, range(len(labels)))),
            labels,
            "rank",
            name,
            *_applied(results, ["full", *below]),
        )
    values = (1.0, *(b for b in below if b < 1)) if results.full or not below else tuple(below)
    labels = tuple("full" if v == 1 else cache_share(v) for v in values)
    scale = "log" if min(values) < LOG_BELOW else "linear"
    title = "Share of the KV cache kept (as asked)"
    applied = _applied(results, ["full" if v == 1 else v for v in values])
    at = [log10(v) for v in values] if scale == "log" else list(values)
    if any(a - b < CLOSEST * (at[0] - at[-1]) for a, b in pairwise(at)):
        return BudgetAxis(tuple(map(float, range(len(labels)))), labels, "rank", f"{title} (evenly spaced)", *applied)
    return BudgetAxis(values, labels, scale, title, *applied)


def _applied(results: Results, asked: list[float | str]) -> tuple[tuple[str, ...], str]:
    """What stands below each label, empty where it is what was asked, and the words for the axis title.

    Fractions: the effective one, median; caps in tokens: the share kept. Several series: from the least to the most.
    """
    if results.unit == Unit.BITS:
        return _widths(results, asked)
    applied = [_shown(results, b) if isinstance(b, float | int) else [] for b in asked]
    below = [shares for b, shares in zip(asked, applied, strict=True) if b != "full"]
    if not any(below):
        return ("",) * len(asked), _unmeasured(results) if below else ""
    if results.unit == Unit.FRACTION:
        same = [
            all(abs(s - float(b)) <= SAME for s in shares) for b, shares in zip(asked, applied, strict=True) if shares
        ]
        if all(same):
            where = "the same" if all(below) else "the same where it is known"
            return ("",) * len(asked), f"applied (median): {where}, within {percent(SAME, 1)}"
        return tuple(_range([percent(s) for s in shares]) for shares in applied), "below: applied, median"
    return tuple(_range([percent(s) for s in shares]) for shares in applied), "below: share of the prompt kept, median"


def _unmeasured(results: Results) -> str:
    """What is said where no level shows a share of the prompt: a cap on what is held while it answers has none."""
    decoding = [run for run in results.runs if run.decodes]
    if decoding and all(status(results, run) == EvidenceStatus.VERIFIED for run in decoding):
        return "applied: as asked, in answers that were long enough"
    return "applied: not known"


def _widths(results: Results, asked: list[float | str]) -> tuple[tuple[str, ...], str]:
    """Bits per element as evidence shows them, below each width that was asked for; empty where all are the same."""
    below: list[list[float]] = []
    for bits in asked:
        rows = [results.evidence.get(run.run_id) for run in results.runs if run.kv_budget == bits and run.is_level]
        proven = [row for row in rows if row is not None and row.status in SHOWN]
        below.append(sorted(row.effective_p50 for row in proven if row.effective_p50 is not None))
    if not any(below):
        return ("",) * len(asked), "applied: not known" if len(asked) > 1 else ""
    if all(abs(shown - float(bits)) <= SAME_BITS for bits, row in zip(asked, below, strict=True) for shown in row):
        where = "the same" if all(below[1:]) else "the same where it is known"
        return ("",) * len(asked), f"applied: {where}, within {SAME_BITS:g} bits"
    return tuple(_range([f"{shown:.3g}" for shown in row]) for row in below), "below: applied"


def _shown(results: Results, asked: float) -> list[float]:
    """Shares kept at one budget, lowest first, of the series whose server shows them."""
    stats = [
        results.stat(run)
        for run in results.runs
        if run.kv_budget == asked and run.is_level and status(results, run) == EvidenceStatus.VERIFIED
    ]
    return sorted(s.kept_fraction_p50 for s in stats if s and s.kept_fraction_p50 is not None)


def _range(texts: list[str]) -> str:
    return "" if not texts else texts[0] if texts[0] == texts[-1] else f"{texts[0]}–{texts[-1]}"


def status(results: Results, run: Run) -> str:
    row = results.evidence.get(run.run_id)
    return row.status if row else EvidenceStatus.FULL if run.is_full else EvidenceStatus.UNVERIFIED
