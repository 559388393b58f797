"""The length bins of a data set, each named by what is in it."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvt_async.contract.formulas.length_names import AskedLengths, length_name, span_name

ALL_LENGTHS = "all lengths"

# A bin without entries keeps its edges. A cut prompt has no longer the length that was asked for it.
_BINS = """
SELECT b.bin_idx, coalesce(e.shortest, b.lo_tokens), coalesce(e.longest, b.hi_tokens), coalesce(e.whole, 1)
FROM bins b LEFT JOIN (
    SELECT bin_idx, min(token_len) AS shortest, max(token_len) AS longest, NOT max(prompt_truncated) AS whole
    FROM manifest_entries WHERE dataset_id = ?1 GROUP BY bin_idx
) e USING (bin_idx)
WHERE b.dataset_id = ?1 ORDER BY b.bin_idx
"""


@dataclass(frozen=True, slots=True)
class Bin:
    """A length bin: tokens of its shortest and its longest prompt, and the length that was asked for all of them.

    `bin_idx` -1 stands for all bins together. `asked_tokens` None: no length was asked, or bins and lengths differ.
    """

    bin_idx: int
    lo_tokens: int
    hi_tokens: int
    asked_tokens: int | None = None
    is_twin: bool = False  # another bin has prompts of the same lengths

    @property
    def label(self) -> str:
        if self.bin_idx < 0:
            return ALL_LENGTHS
        asked = self.asked_tokens
        text = length_name(asked) if asked is not None else span_name(self.lo_tokens, self.hi_tokens)
        return f"{text} (bin {self.bin_idx})" if self.is_twin else text


def span_label(bins: Sequence[Bin]) -> str:
    """What neighbouring bins are called together: '1k–4k', '190–451'."""
    first, last = bins[0], bins[-1]
    if len(bins) == 1:
        return first.label
    if first.asked_tokens is not None and last.asked_tokens is not None:
        return f"{length_name(first.asked_tokens)}–{length_name(last.asked_tokens)}"
    return span_name(min(b.lo_tokens for b in bins), max(b.hi_tokens for b in bins))


def length_bins(conn: sqlite3.Connection, dataset_id: str) -> list[Bin]:
    """Short to long, empty ones included; no two have the same label."""
    name, selection, prompt = conn.execute(
        "SELECT name, selection_json, prompt_json FROM datasets WHERE dataset_id = ?", (dataset_id,)
    ).fetchone()
    asked = AskedLengths.of(
        name, json.loads(selection).get("params", {}), json.loads(prompt).get("task_max_new_tokens")
    )
    rows = conn.execute(_BINS, (dataset_id,)).fetchall()
    spans = [(low, high) for _, low, high, _ in rows]
    named = asked.of_bins(spans) if asked and all(whole for *_, whole in rows) else None
    lengths: Sequence[int | None] = named or [None] * len(rows)
    bins = [Bin(row[0], *span, length) for row, span, length in zip(rows, spans, lengths, strict=True)]
    labels = [b.label for b in bins]
    return [replace(b, is_twin=labels.count(b.label) > 1) for b in bins]
