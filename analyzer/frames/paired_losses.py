"""kvt's paired tests on a frame of outcomes: what a notebook needs to judge answers by itself."""

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.stats.margin import Margin
from analyzer.stats.transition import Grid, against_full
from kvt_async.contract.vocabulary import FULL

_EXAMPLE = ("example_id", "bin_idx", "context_sha256")


def paired_losses(
    outcomes: pl.DataFrame, *, margin: float = 0.05, alpha: float = 0.05, relative: bool = False
) -> pl.DataFrame:
    """Every level of one task against full cache, paired by example, by the tests of kvt's verdicts.

    `outcomes`: of GroupResults.outcomes() or rescore(), or any frame with series, kv_budget, repeat_idx, example_id,
    bin_idx, context_sha256, state and score; several answers of an example count as their mean. A verdict is over the
    first `results.samples` answers of each: filter sample_idx to have the same. `margin`: in score units, or
    `relative`, as a share of what full cache scores. A row a level, largest budget first: series, kv_budget, n (pairs),
    drop, drop_low, drop_high (1 - alpha), n_worse, n_better, and p values: p_safe (of "the margin or more is lost":
    small means proven safe), p_loss ("nothing is lost"), p_broken ("the margin or less is lost").
    Length bins weigh equally, examples of one context are one unit. Raises ValueError for more tasks than one, and
    where full cache has no outcomes.
    """
    if "task" in outcomes.columns and outcomes["task"].n_unique() > 1:
        raise ValueError("these are outcomes of several tasks: filter those of one")
    first = outcomes.filter(pl.col("repeat_idx") == 0, pl.col("score").is_not_null())
    examples = first.select(_EXAMPLE).unique("example_id", maintain_order=True).with_row_index("entry")
    means = first.group_by("series", "kv_budget", "example_id", maintain_order=True).agg(
        pl.col("score").mean(), failed=(pl.col("state") == "failed").any()
    )
    means = means.join(examples, on="example_id")
    scores: dict[str, npt.NDArray[np.float64]] = {}
    failed: dict[str, npt.NDArray[np.bool_]] = {}
    levels: list[tuple[str, float]] = []
    for (series, budget), rows in means.group_by("series", "kv_budget", maintain_order=True):
        column = np.full(examples.height, np.nan)
        column[rows["entry"].to_numpy()] = rows["score"].to_numpy()
        key = FULL if series == FULL else f"{series} {budget}"
        scores[key] = column
        failed[key] = np.zeros(examples.height, dtype=bool)
        failed[key][rows["entry"].to_numpy()] = rows["failed"].to_numpy()
        levels += [(str(series), float(str(budget)))] if series != FULL else []
    if FULL not in scores:
        raise ValueError("full cache has no outcomes here: there is nothing to compare with")
    cluster = examples["context_sha256"].rank("dense").cast(pl.Int64).to_numpy() - 1
    grid = Grid(scores, examples["bin_idx"].to_numpy().astype(np.int64), cluster, failed)
    size = Margin(margin, "relative" if relative else "absolute")
    rows_of: list[dict[str, object]] = []
    for series, budget in sorted(levels, key=lambda level: (level[0], -level[1])):
        test = against_full(grid, FULL, f"{series} {budget}", budget, -1, margin=size, alpha=alpha)
        names = ("n", "drop", "drop_low", "drop_high", "n_worse", "n_better", "p_safe", "p_loss", "p_broken")
        rows_of.append({"series": series, "kv_budget": budget} | {name: getattr(test, name) for name in names})
    return pl.DataFrame(rows_of)


def safe_budget(losses: pl.DataFrame, series: str, *, alpha: float = 0.05) -> float:
    """The smallest budget of a series such that it and all above are proven safe at one-sided alpha / 2.

    `losses` of paired_losses; 1.0, full cache, where no budget is safe, as a verdict has it. It is the claim of a
    verdict over all lengths of the first series: the other series of a group share their level by Holm's rule, and a
    verdict also asks for evidence and for something to lose.
    """
    levels = losses.filter(pl.col("series") == series).sort("kv_budget", descending=True)
    safe = 1.0
    for budget, p_safe in levels.select("kv_budget", "p_safe").iter_rows():
        if p_safe > alpha / 2:
            break
        safe = budget
    return safe
