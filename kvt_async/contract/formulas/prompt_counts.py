"""Did the server read the prompts that were sent? Its count of a prompt's tokens, held against ours.

Three things can be told. With one tokenizer on both sides, a count below ours is a prompt that was cut. With any
tokenizer, many prompts of clearly different lengths and one count, the largest there is, are prompts cut to one window.
And a ratio that is off but steady is another tokenizer's. The runner warns of it, the analyzer takes claims back.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

SLACK_TOKENS, SLACK_SHARE = 8, 0.02  # a template's worth of difference is no cut
SHORT_SHARE = 0.01  # of a run's responses; more are no accident
CLEARLY = 1.25  # lengths that differ by this factor are different, whoever estimates them
LEAST_EQUAL = 3  # responses; two may meet by chance
LEAST_WINDOW = 64  # tokens; no server's window is smaller: an equal count below it is none
OFF_FACTOR, STEADY = 0.1, 0.15  # a ratio further from 1 than this; a spread of the ratio no wider than that
LONG_ENOUGH = 32  # tokens, below which a template weighs too much for a ratio

Count = tuple[int, int, int]  # tokens as the server read them, as we counted them, responses that have both


@dataclass(frozen=True, slots=True)
class PromptCounts:
    """What the counts of one run, or of several, say. `sent`, `read`: medians of the prompts that were read shorter."""

    n: int = 0  # responses with a count
    n_short: int = 0
    sent: int | None = None
    read: int | None = None
    by_window: bool = False  # told by equal counts, not by a count below ours
    factor: float | None = None  # the server's count over ours, where it is off and steady
    constant: int | None = None  # one count for prompts of every length: it says nothing
    of_run: int | None = None  # of several runs: the responses of those that were cut, which are judged one by one

    @property
    def are_short(self) -> bool:
        """Whether more prompts were read shorter than sent than could be an accident."""
        return self.n_short > SHORT_SHARE * (self.n if self.of_run is None else self.of_run)

    @property
    def sentence(self) -> str:
        """What was read shorter; empty where nothing was."""
        if not self.are_short:
            return ""
        how = " (equal counts over different lengths)" if self.by_window else ""
        return (
            f"{self.share} read shorter than sent ({self.sent:,} → {self.read:,}){how}: the server cut "
            f"{'it' if self.n_short == 1 else 'them'}, so lengths and budgets are not those named"
        )

    @property
    def share(self) -> str:
        """`12 of 240 prompts were`."""
        return f"{self.n_short:,} of {self.n:,} prompts {'was' if self.n_short == 1 else 'were'}"

    @property
    def note(self) -> str:
        """What else the counts say of the lengths shown; empty where they agree."""
        if self.constant is not None:
            return (
                f"The server says {self.constant:,} prompt tokens whatever the prompt's length, so its counts show "
                "neither what it read nor whether it cut anything."
            )
        if self.factor is None:
            return ""
        return (
            f"The server counts {self.factor:.2g} times the prompt tokens that we do, steadily: it has another "
            "tokenizer than tokenizer.name says. Lengths and length bins are in our tokens."
        )


def judge(counts: Iterable[Count], *, exact: bool) -> PromptCounts:
    """What the responses of one run say. `exact`: both sides count with one tokenizer, as far as the config knows."""
    counted = [(read, sent, n) for read, sent, n in counts if n > 0 and read > 0]  # 0: the server didn't count
    total = sum(n for _, _, n in counted)
    if not total:
        return PromptCounts()
    below = [(read, sent, n) for read, sent, n in counted if exact and is_short(read, sent)]
    window = _window(counted, total)
    short = below if sum(n for *_, n in below) > SHORT_SHARE * total or not window else window
    n_short = sum(n for *_, n in short)
    return PromptCounts(
        n=total,
        n_short=n_short,
        sent=_median([(sent, n) for _, sent, n in short]),
        read=_median([(read, n) for read, _, n in short]),
        by_window=bool(short) and short is window,
        factor=_factor(counted),
        constant=_constant(counted),
    )


def together(runs: Iterable[PromptCounts]) -> PromptCounts:
    """One statement about several runs: short where one of them is."""
    every = list(runs)
    short = [run for run in every if run.are_short]
    factors = [(round(run.factor * 1000), run.n) for run in every if run.factor is not None]
    factor = _median(factors)
    return PromptCounts(
        n=sum(run.n for run in every),
        n_short=sum(run.n_short for run in short),
        sent=_median([(run.sent, run.n_short) for run in short if run.sent is not None]),
        read=_median([(run.read, run.n_short) for run in short if run.read is not None]),
        by_window=any(run.by_window for run in short),
        factor=None if factor is None else factor / 1000,
        constant=next((run.constant for run in every if run.constant is not None), None),
        of_run=sum(run.n for run in short) if short else None,
    )


def is_short(read: int, sent: int) -> bool:
    """Whether the server's count is so far below ours that part of the prompt is missing."""
    return read < sent - max(SLACK_TOKENS, SLACK_SHARE * sent)


def _window(counts: list[Count], total: int) -> list[Count]:
    """The responses that share the largest count though their prompts' lengths clearly differ; empty: no such thing."""
    top = max(read for read, _, _ in counts)
    if top < LEAST_WINDOW:
        return []
    at_top = [count for count in counts if count[0] == top]
    shortest = min(sent for _, sent, _ in at_top)
    n_longer = sum(n for _, sent, n in at_top if sent >= CLEARLY * shortest)
    return at_top if n_longer >= max(LEAST_EQUAL, SHORT_SHARE * total) else []


def _constant(counts: list[Count]) -> int | None:
    reads, lengths = {read for read, _, _ in counts}, [sent for _, sent, _ in counts]
    if len(reads) == 1 and max(lengths) >= CLEARLY * max(1, min(lengths)) and max(reads) < LEAST_WINDOW:
        return reads.pop()
    return None


def _factor(counts: list[Count]) -> float | None:
    """The ratio of the two counts where it is off and steady over lengths; None: it is about 1, or not steady."""
    ratios = sorted((read / sent, n) for read, sent, n in counts if sent >= LONG_ENOUGH)
    if not ratios:
        return None
    low, middle, high = (_quantile(ratios, q) for q in (0.1, 0.5, 0.9))
    return middle if abs(middle - 1) > OFF_FACTOR and high - low <= STEADY * middle else None


def _quantile(weighted: list[tuple[float, int]], q: float) -> float:
    rank, seen = q * sum(n for _, n in weighted), 0
    for value, n in weighted:
        seen += n
        if seen >= rank:
            return value
    return weighted[-1][0]


def _median(weighted: list[tuple[int, int]]) -> int | None:
    merged: Counter[int] = Counter()
    for value, n in weighted:
        merged[value] += n
    return int(_quantile([(float(value), n) for value, n in sorted(merged.items())], 0.5)) if merged else None
