"""What full cache's answers are worth without what they answer: the floor below which nothing can be lost.

Each answer of full cache is scored once more against the golds of another example of its bin, of another context where
that can be. What it scores there it owes to the task (few possible answers, a popular one), not to having read the
prompt. A metric that reads no golds holds it against another example's fields of meta (its instructions) instead. Where
the task names its choices, one over their number is a floor too; the higher of the two counts.

Headroom = accuracy at full cache minus the floor, paired by example and tested as losses are (paired_tests.py). A
budget can lose no more than that, so a loss below the margin means something only where the headroom is proven above
the margin.
An example that is alone in its bin has a floor of 0.
"""

import json
import sqlite3
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.read import examples, outcomes
from analyzer.read.runs import Run, metric_of_scores
from analyzer.scoring.prepared_golds import prepared_golds
from analyzer.scoring.score import reads, reads_golds, rules_of, score_frame
from analyzer.stats.margin import Margin
from analyzer.stats.repeated_answers import Aggregate
from analyzer.stats.transition import Grid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OTHERS, CHANCE = "other golds", "chance"
DOUBTFUL = 0.2  # p of "the headroom is at most the margin" above which nothing is said to speak for more


@dataclass(frozen=True)
class Floors:
    """Over the dataset's entries, [n]: what full cache's answer scores against another example's golds, and by chance.

    others is 0 where there is no other example or no answer; chance is NaN where the task names no choices.
    """

    others: Floats
    chance: Floats


@dataclass(frozen=True)
class Headroom:
    """Accuracy at full cache above its floor in one bin (or all), its 1 - alpha interval, and the p value of
    "it is at most the margin"."""

    kind: str
    floor: float
    mean: float
    low: float
    high: float
    p: float
    doubtful: bool  # nothing speaks for more than the margin; else, where it isn't shown, the pairs may be too few

    def shown(self, level: float) -> bool:
        """Whether there is more than the margin to lose, proven at one-sided `level`."""
        return self.p <= level

    @property
    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "floor": round(self.floor, 9),
            "headroom": round(self.mean, 9),
            "low": round(self.low, 9),
            "high": round(self.high, 9),
            "p": round(self.p, 12),
        }


@dataclass(frozen=True)
class RepeatedAnswers:
    """The k answers of each example that count, and how they make one score; texts [n, k] as Aggregate.scores wants."""

    samples: int = 1
    aggregate: Aggregate = field(default_factory=Aggregate)
    texts: Ints | None = None

    def of_chance(self, chance: Floats) -> Floats:
        """Chance level of the aggregate, of those of one answer."""
        return 1 - (1 - chance) ** self.aggregate.size if self.aggregate.kind == "pass" else chance


ONE_ANSWER = RepeatedAnswers()


def floors(facts: sqlite3.Connection, run: Run, entries: pl.DataFrame, answers: RepeatedAnswers = ONE_ANSWER) -> Floors:
    """Score the answers of a full-cache run against other examples' golds, by the metric of its own scores."""
    dataset = examples.dataset(facts, run.dataset_id).scored_by(metric_of_scores(facts, run.run_id))
    if reads(dataset.metric) == "given":  # of other examples' golds nobody judged these answers
        unknown = np.full(entries.height, np.nan)
        return Floors(unknown, unknown)
    golds = entries.select("entry", "example_id").join(
        prepared_golds(facts, dataset), on="example_id", how="left", maintain_order="left"
    )
    partner = partners(entries["bin_idx"].to_numpy(), entries["cluster"].to_numpy())
    has = partner >= 0
    own = golds.filter(pl.Series(has))
    judged_by = ["golds", "golds_norm", *(() if reads_golds(dataset.metric) else ("needed_json",))]
    swapped = own.with_columns(golds[partner[has]].select(judged_by))
    rules, others = rules_of(facts, run, None, dataset), np.zeros((entries.height, answers.samples))
    for chunk in outcomes.score_inputs(facts, [run], None, reads=reads(dataset.metric)):
        counted = chunk.filter(pl.col("sample_idx") < answers.samples)
        frame = counted.join(swapped, on="example_id", how="inner", maintain_order="left")
        scored = score_frame(frame, rules)  # rows stay in their order
        others[frame["entry"].to_numpy(), frame["sample_idx"].to_numpy()] = scored["score"].to_numpy()
    return Floors(answers.aggregate.scores(others, answers.texts), answers.of_chance(_chance(golds)))


def partners(bin_idx: Ints, cluster: Ints) -> Ints:
    """Position of another example of the same bin, for each: [n]; -1 where it is alone there.

    One rotation: a bin's examples, context by context, each take the golds of the one as many places on as its largest
    context has examples, so every example lends its golds once, and to another context unless one holds over half of
    the bin. Contexts are numbered by their hashes: at random.
    """
    partner = np.full(len(bin_idx), -1, dtype=np.int64)
    order = np.lexsort((cluster, bin_idx))
    for members in np.split(order, np.flatnonzero(np.diff(bin_idx[order])) + 1):
        if len(members) > 1:
            largest = int(np.bincount(cluster[members]).max())
            partner[members] = np.roll(members, -largest if largest < len(members) else -1)
    return partner


def _chance(golds: pl.DataFrame) -> Floats:
    if "needed_json" not in golds.columns:
        return np.full(golds.height, np.nan)
    needed = golds["needed_json"].cast(pl.String)
    sizes = {text: len(json.loads(text).get("all_classes") or []) for text in needed.unique().drop_nulls()}
    number = needed.replace_strict(sizes, default=0, return_dtype=pl.Float64).to_numpy()
    with np.errstate(divide="ignore"):
        return np.where(number > 0, 1 / number, np.nan)


def headroom(
    grid: Grid, full: str, floors: Floors, bin_idx: int, *, margin: float | Margin, alpha: float
) -> Headroom | None:
    """What full cache has to lose in a bin (or all), from its highest floor; None where it has no scores.

    Both floors must lie more than the margin below, each tested at the same level: p is the larger of the two.
    """
    margin = Margin.of(margin)
    score = grid.score[full]
    headrooms = []
    for kind, base in ((OTHERS, floors.others), (CHANCE, floors.chance)):
        paired = grid.rows(bin_idx) & ~np.isnan(score) & ~np.isnan(base)
        if not paired.any():
            continue
        units = grid.units(score - base, paired)
        low, high = units.interval(alpha)
        floor = grid.units(base, paired).mean
        judged = replace(grid.units(margin.judged(score, base), paired), lowest=margin.lowest)
        p = judged.p_drop_at_most(margin.size)
        # Were every answer right and every other one wrong:
        able = ((1 + margin.size) / 2) ** len(units.drop) <= DOUBTFUL
        doubtful = p > DOUBTFUL and (able or judged.mean <= margin.size)
        headrooms.append(Headroom(kind, floor, units.mean, low, high, p, doubtful))
    return max(headrooms, key=lambda room: (room.p, room.floor), default=None)
