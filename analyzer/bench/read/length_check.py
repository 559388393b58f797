"""Lengths that were asked for and lengths that came: a bench of shorter prompts or replies is another bench."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analyzer.bench.read.stage_facts import StageFacts

OFF_SHARE, OFF_TOKENS = 0.02, 8.0  # a mean off by more than both is not the length that was asked for
CUT_SHARE = 0.01  # of the prompts
SPREAD = 1.1  # longest over shortest prompt from which on equal counts tell
OFF_ESTIMATED = 0.1  # prompts counted by an estimate (approx:...) may be off by this share
_APPROX = "approx:"


@dataclass(frozen=True, slots=True)
class LengthCheck:
    """Sums over the answered replies of which both are known, in tokens; `n_*` of how many.

    `input_got` is the server's count of prompt tokens, `output_got` that of generated ones (usage's:
    chunks are no tokens).
    `n_cut`: prompts of which the server read less than was sent, by more than 8 tokens and 2%; `all_as`: the one count
    that it has for prompts of different lengths (it cuts them there), None: its counts differ as they should.
    `ends_freely`: replies are to end where the model ends them, for they are scored; what was asked is their limit.
    `estimated`: what was asked of prompts was counted by an estimate, not with the model's tokenizer.
    """

    n_input: int
    input_asked: int
    input_got: int
    n_output: int
    output_asked: int
    output_got: int
    estimated: bool
    n_cut: int = 0
    all_as: int | None = None
    ends_freely: bool = False

    @property
    def input_share(self) -> float:
        """The share of the prompt tokens asked for that the server counts; NaN: it does not count them."""
        return self.input_got / self.input_asked if self.input_asked else math.nan

    @property
    def output_share(self) -> float:
        return self.output_got / self.output_asked if self.output_asked else math.nan

    @property
    def input_is_off(self) -> bool:
        return _is_off(self.input_share, self.input_asked, self.n_input, OFF_ESTIMATED if self.estimated else OFF_SHARE)

    @property
    def cuts(self) -> bool:
        """Whether more prompts were cut than chance or a template explains; False where lengths are an estimate."""
        return not self.estimated and self.n_cut > CUT_SHARE * self.n_input

    @property
    def output_is_off(self) -> bool:
        """Whether replies are longer or shorter than asked. The server ends them at a whole token, so no tokens are
        allowed for."""
        is_off = not math.isnan(self.output_share) and abs(self.output_share - 1) > OFF_SHARE
        return is_off and not self.ends_freely


def _is_off(share: float, asked: int, n: int, allowed: float) -> bool:
    return not math.isnan(share) and abs(share - 1) > allowed and abs(share - 1) * asked / n > OFF_TOKENS


def lengths_of(answered: pl.DataFrame, stage: StageFacts) -> LengthCheck:
    """The lengths of a stage's measured replies."""
    prompts = answered.filter(pl.col("prompt_tokens").is_not_null() & pl.col("input_tokens").is_not_null())
    counted = (pl.col("counted") == "usage") & pl.col("tokens").is_not_null()  # a chunk may hold several tokens
    replies = answered.filter(counted & pl.col("output_tokens").is_not_null())
    asked, got = prompts["input_tokens"], prompts["prompt_tokens"]
    cut = (asked - got) > pl.Series([max(OFF_TOKENS, OFF_SHARE * n) for n in asked], dtype=pl.Float64)
    varied = prompts.height > 2 and float(asked.max() or 0) > SPREAD * float(asked.min() or 0)  # type: ignore[arg-type]
    one_count = int(got[0]) if varied and got.n_unique() == 1 else None
    return LengthCheck(
        prompts.height,
        int(prompts["input_tokens"].sum()),
        int(prompts["prompt_tokens"].sum()),
        replies.height,
        int(replies["output_tokens"].sum()),
        int(replies["tokens"].sum()),
        str(stage.workload.get("tokenizer", "")).startswith(_APPROX),
        int(cut.sum()),
        one_count,
        "scored" in stage.plan,
    )


def together(parts: Sequence[LengthCheck]) -> LengthCheck:
    """The lengths of several repeats together."""
    return LengthCheck(
        n_input=sum(part.n_input for part in parts),
        input_asked=sum(part.input_asked for part in parts),
        input_got=sum(part.input_got for part in parts),
        n_output=sum(part.n_output for part in parts),
        output_asked=sum(part.output_asked for part in parts),
        output_got=sum(part.output_got for part in parts),
        estimated=any(part.estimated for part in parts),
        n_cut=sum(part.n_cut for part in parts),
        all_as=next(iter({part.all_as for part in parts})) if len({part.all_as for part in parts}) == 1 else None,
        ends_freely=all(part.ends_freely for part in parts),
    )


def sentence(lengths: LengthCheck) -> str | None:
    """'prompts were 5% of the length asked for (200 tokens instead of 4,096), replies 25% (2 instead of 8): shorter
    than the load that was asked for'; None: both are as asked."""
    parts, shares = [], []
    if lengths.input_is_off:
        got, asked = lengths.input_got / lengths.n_input, lengths.input_asked / lengths.n_input
        estimate = ", an estimate" if lengths.estimated else ""
        parts.append(
            f"prompts were {share(lengths.input_share)} of the length asked for ({got:,.0f} tokens instead of "
            f"{asked:,.0f}{estimate})"
        )
        shares.append(lengths.input_share)
    if lengths.output_is_off:
        got, asked = lengths.output_got / lengths.n_output, lengths.output_asked / lengths.n_output
        head, of, unit = ("replies", "", "") if parts else ("replies were", " of the length asked for", " tokens")
        parts.append(f"{head} {share(lengths.output_share)}{of} ({_tokens(got)}{unit} instead of {_tokens(asked)})")
        shares.append(lengths.output_share)
    cut = ""
    if lengths.all_as is not None:
        cut = f"the server counted {lengths.all_as:,} tokens for prompts of different lengths: it cuts them"
    elif lengths.cuts and not lengths.input_is_off:
        cut = f"{lengths.n_cut:,} of {lengths.n_input:,} prompts were read shorter than they were sent"
    if not parts:
        return cut or None
    how = "shorter than" if max(shares) < 1 else "longer than" if min(shares) > 1 else "other than"
    return f"{', '.join(parts)}: {how} the load that was asked for" + (f" ({cut})" if cut else "")


def _tokens(mean: float) -> str:
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"


def share(value: float) -> str:
    """A share in percent that is never rounded to 100%."""
    if math.isnan(value):
        return "-"
    return f"{value:.0%}" if abs(value - 1) >= 0.02 else f"{value:.1%}"
