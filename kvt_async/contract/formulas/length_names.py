"""What a length bin is called: by the length asked for its prompts, else by its shortest and longest one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_LENGTHS = (4096,)  # tokens; of `ruler` without dataset.params.lengths


@dataclass(frozen=True, slots=True)
class AskedLengths:
    """The lengths that prompts were generated for, in tokens and rising; the answer's `reserve` is part of each."""

    lengths: tuple[int, ...]
    reserve: int

    @staticmethod
    def of(source: str, params: Mapping[str, Any], max_new_tokens: int | None) -> "AskedLengths | None":
        """Those of a data set; None where its source asks for no length, or `params` are not what it takes."""
        lengths, reserve = params.get("lengths", list(DEFAULT_LENGTHS)), params.get("reserve", max_new_tokens)
        if source != "ruler" or not isinstance(lengths, list) or not all(map(_is_count, [*lengths, reserve])):
            return None
        return AskedLengths(tuple(sorted(set(lengths))), reserve) if lengths else None

    def edges(self) -> list[int]:
        """Edges of one bin for each length: a prompt and the reserve fit into its own, and not into the one before."""
        return [0, *(length - self.reserve for length in self.lengths)]

    def of_bins(self, spans: Sequence[tuple[int, int]]) -> list[int] | None:
        """The length that was asked for the prompts of each bin, given its shortest and longest.

        None where a bin holds several lengths, or a length lies in several bins: then none is named by it.
        """
        asked = [self._least(low) for low, high in spans if self._least(low) == self._least(high)]
        lengths = [length for length in asked if length is not None]
        return lengths if len(set(lengths)) == len(spans) else None

    def _least(self, tokens: int) -> int | None:
        return next((length for length in self.lengths if tokens + self.reserve <= length), None)


def length_name(tokens: int) -> str:
    """1024 -> '1k', 131072 -> '128k'; what is no whole number of 1,024 stays a number: '1,000'."""
    return f"{tokens // 1024:,}k" if tokens % 1024 == 0 else f"{tokens:,}"


def span_name(low: int, high: int) -> str:
    """'190–194'; '980' where all prompts have one length; 'empty' where no length fits."""
    if low > high:
        return "empty"
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
