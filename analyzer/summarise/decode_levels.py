"""What budgets that apply while answers are generated did, level by level: `while_generating` of zone_json.

The verdict is about all answers. Beside it stand the paired loss over the answers whose cache was compressed, which
explores, since how long an answer gets is an effect of the level; and over those whose answer at full cache was long
enough for it, which the level can't have chosen. Memory is the most that was held, as a ratio to full cache's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.read.compressions import Compressions
from analyzer.read.runs import Run
from analyzer.stats.chosen_loss import chosen_loss
from analyzer.stats.length_ratio import length_ratio
from analyzer.summarise.decode_evidence import has_evidence
from analyzer.summarise.group import Group

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Detail = dict[str, Any]


def decode_details(group: Group, levels: Sequence[Run]) -> Mapping[str, Any]:
    """Of a series' levels from the highest budget down, {"while_generating": [...]}; {} of other series.

    A level: budget, unit, when; said, applied (answers whose reply says how often, and whose cache was compressed),
    share, shown (enough of them were). of_applied, of_reached: {n, contexts, drop, low, high}, null without pairs.
    peak: {full, here, ratio, low, high} in tokens, null where replies don't say it.
    """
    details = [_level(group, run, applied) for run in levels if (applied := group.compressions.get(run.run_id))]
    return {"while_generating": details} if details else {}


def _level(group: Group, run: Run, applied: Compressions) -> Detail:
    return {
        "budget": run.kv_budget,
        "unit": run.kv_unit,
        "when": run.kv_when,
        "said": applied.n_said,
        "applied": applied.n_applied,
        "share": round(applied.share, 9),
        "shown": has_evidence(applied) and applied.n_said > 0,
        "of_applied": _loss(group, run, applied.applied),
        "of_reached": _loss(group, run, applied.reached == 1),
        "peak": _peak(group, applied),
    }


def _loss(group: Group, run: Run, chosen: Bools) -> Detail | None:
    """The paired loss over the chosen answers [entries, answers to each]."""
    if group.full is None:
        return None
    full, here = (group.outcomes[run_id].score.reshape(chosen.shape) for run_id in (group.full.run_id, run.run_id))
    loss = chosen_loss(full, here, chosen, group.grid.cluster, group.analysis.alpha)
    if loss is None:
        return None
    return {name: round(value, 9) for name, value in asdict(loss).items()}


def _peak(group: Group, applied: Compressions) -> Detail | None:
    """The mean of the most tokens held, here and at full cache, and their ratio, over the answers that say both."""
    both = ~np.isnan(applied.peak + applied.full_peak)
    known = both.any(axis=1)
    if not known.any():
        return None
    here, full = (np.nanmean(np.where(both, side, np.nan)[known], axis=1) for side in (applied.peak, applied.full_peak))
    weight = np.full(len(here), 1 / len(here))
    ratio = length_ratio(full, here, group.grid.cluster[known], weight, group.analysis.alpha)
    return {
        "full": round(ratio.full, 3),
        "here": round(ratio.here, 3),
        "ratio": _rounded(ratio.ratio),
        "low": _rounded(ratio.low),
        "high": _rounded(ratio.high),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)
