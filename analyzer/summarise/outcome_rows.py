"""Answers of every level beside full cache's -> rows of outcome_changes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.read.runs import Run
from analyzer.stats.outcome_changes import AnswerTraits, Change, EntryLayout, adjusted, changes
from analyzer.stats.seed_effect import SeedEffect, seed_effect
from analyzer.store.tables import OutcomeChange
from analyzer.summarise.group import Group
from kvt_async.contract.formulas.sample_seed import has_other_seeds
from kvt_async.contract.vocabulary import Measure, SeedVerdict

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Decoding:
    """How a run's answers were asked for, as sample_seed reads it; `seed` is stored as it was used."""

    seed: int | None
    temperature: float | None
    samples: int = 1


def outcome_rows(group: Group) -> list[OutcomeChange]:
    """Rows of every run but full cache, in the order of the runs; none without full cache. p values are adjusted over
    all levels together, repeats left out."""
    full, traits, alpha = group.full, group.traits, group.analysis.alpha
    if full is None or not traits:
        return []
    layout = EntryLayout(group.grid.cluster, group.grid.bin_idx)
    repeats = [traits[run.run_id] for run in comparable_repeats(group.runs, traits, layout, alpha)]
    rows: list[tuple[Run, Change]] = []
    for run in group.runs:
        if not run.is_baseline:
            beside = [] if run.is_full else repeats
            rows += [(run, row) for row in changes(traits[full.run_id], traits[run.run_id], beside, layout, alpha)]
    p_holm = iter(adjusted(row for run, row in rows if not run.is_full))
    return [
        OutcomeChange(
            series=run.series,
            kv_budget=run.kv_budget,
            repeat_idx=run.repeat_idx,
            measure=row.measure,
            n=row.n,
            full_value=row.full,
            value=row.here,
            change=row.change,
            change_ci_low=row.low,
            change_ci_high=row.high,
            p_holm=None if run.is_full else next(p_holm),
        )
        for run, row in rows
    ]


def comparable_repeats(
    runs: Sequence[Run], traits: Mapping[str, AnswerTraits], layout: EntryLayout, alpha: float
) -> list[Run]:
    """The repeats of full cache that show how far its own texts repeat: those with the same seeds. None where answers
    are drawn and it isn't shown that the server keeps to seeds: then texts part at every level for no reason of it."""
    same, other = repeats_by_seed(runs)
    if not other:
        return same
    seeds = seeds_of(runs, traits, layout, alpha)
    return same if seeds and seeds.verdict in (SeedVerdict.KEPT, SeedVerdict.NOTHING_DIFFERS) else []


def seeds_of(
    runs: Sequence[Run], traits: Mapping[str, AnswerTraits], layout: EntryLayout, alpha: float
) -> SeedEffect | None:
    """Whether the server keeps to its seeds, by the texts of full cache's repeats; None where none has other seeds."""
    same, other = (_share_that_differs(repeats, traits) for repeats in repeats_by_seed(runs))
    if same is None or other is None:
        return None
    return seed_effect(same, other, layout.cluster, layout.bin_idx, alpha=alpha)


def seed_detail(group: Group) -> dict[str, Any]:
    """What zone_json says of the server's seeds: {} where no repeat of full cache was asked with others."""
    layout = EntryLayout(group.grid.cluster, group.grid.bin_idx)
    seeds = seeds_of(group.runs, group.traits, layout, group.analysis.alpha) if group.traits else None
    if seeds is None:
        return {}
    return {"seeds": {name: getattr(seeds, name) for name in ("verdict", "n", "same", "other", "n_needed")}}


def repeats_by_seed(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Repeats of full cache with the same seeds as its first run, and with others."""
    repeats = [run for run in runs if run.is_full and run.repeat_idx > 0]
    other = {run.run_id for run in repeats if has_other_seeds(run.repeat_idx, _decoding(run))}
    return [r for r in repeats if r.run_id not in other], [r for r in repeats if r.run_id in other]


def _decoding(run: Run) -> _Decoding:
    """Before answers had seeds of their own no seed was sent where none was given, and the stored one is null too."""
    sent = json.loads(run.decoding_json)
    return _Decoding(sent.get("seed"), sent.get("temperature", 0))


def _share_that_differs(repeats: Sequence[Run], traits: Mapping[str, AnswerTraits]) -> Floats | None:
    """Of each example, the share of answers whose text isn't full cache's: [n]; NaN where none is known."""
    if not repeats:
        return None
    identical = np.concatenate([traits[run.run_id].of[Measure.IDENTICAL] for run in repeats], axis=1)
    known = (~np.isnan(identical)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(1.0 - np.nansum(identical, axis=1, dtype=np.float64) / known)
