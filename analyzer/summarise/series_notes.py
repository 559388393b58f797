"""What limits that a verdict can show: sentences that stand beside it (`notes` of zone_json)."""

from collections.abc import Sequence
from itertools import pairwise

from analyzer.results.number_format import budget, listed, plural
from analyzer.store.tables import BinStat
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.group import Group
from analyzer.summarise.guessing_floor import CHANCE, OTHERS
from analyzer.summarise.held_golds import held_note
from analyzer.summarise.series_bin import FEWEST_CONTEXTS, SeriesBin

_FLOORS = {OTHERS: "against the golds of other examples", CHANCE: "by chance"}


def notes(summary: SeriesBin, group: Group) -> list[str]:
    """Everything that is to be said beside the verdict of one series in one bin."""
    levels = group.series[summary.level.series]
    applied = [(run.kv_budget, group.stats[run.run_id, summary.bin_idx]) for run in levels if not run.decodes]
    of_group = held_note(summary.acc_full, group.held, group.dataset.metric) if summary.bin_idx == ALL_BINS else []
    return (
        _left_out(summary, group)
        + of_group
        + group.look.note
        + _answers(group)
        + limits(summary, group.analysis.alpha)
        + same_effective(applied)
    )


def _left_out(summary: SeriesBin, group: Group) -> list[str]:
    """That levels which are far behind the others are not judged."""
    levels = [
        f"{budget(run.kv_budget, summary.unit)} ({counts.scores:,} of {plural(counts.total, 'answer')})"
        for run, counts in group.left_out(summary.level.series)
    ]
    return [f"left out of the verdict, because most of it is still pending: {listed(levels)}"] if levels else []


def _answers(group: Group) -> list[str]:
    """That fewer answers count than were asked for."""
    if group.samples >= group.n_samples:
        return []
    return [f"answers: the first {group.samples} of the {group.n_samples} answers to each example count"]


def limits(summary: SeriesBin, alpha: float) -> list[str]:
    """Floors, ceilings, too few contexts and noise."""
    sentences = []
    acc_full, headroom = summary.acc_full, summary.headroom
    if acc_full is not None and acc_full >= 1 - 1e-9:
        sentences.append("ceiling: full cache is always right here, so a smaller cache can only lose")
    base = headroom.floor if headroom else 0.0
    if summary.acc and acc_full and min(summary.acc) <= base + 0.02 < acc_full:
        sentences.append("floor: at the smallest budgets nothing is left to lose")
    if headroom and not summary.has_something_to_lose:
        sentences.append(
            f"floor at full cache: its answers score {headroom.floor:.3f} {_FLOORS[headroom.kind]}, and that "
            "it scores more than the margin above that is not proven, so no budget is called safe"
        )
    if acc_full is not None and summary.total_loss_proven and not summary.is_resampled:
        sentences.append(
            f"resamples: a length bin holds {summary.fewest} contexts, too few to say where half of the loss has "
            f"happened or how the zone could move (that takes {FEWEST_CONTEXTS} in each)"
        )
    if summary.noise and summary.tests and all(summary.noise.explains(test, alpha) for test in summary.tests):
        sentences.append("noise: every drop is within what repeated full-cache runs differ by")
    return sentences


def same_effective(levels: Sequence[tuple[float, BinStat]]) -> list[str]:
    """Neighbouring budgets that the server rounded to one: they are one level under two names."""
    return [
        f"{above:g} and {below:g} were applied as the same budget ({stat.kept_tokens_p50:g} tokens kept)"
        for (above, stat), (below, next_stat) in pairwise(levels)
        if stat.kept_tokens_p50 is not None
        and stat.kept_tokens_p50 == next_stat.kept_tokens_p50
        and stat.kept_fraction_p50 == next_stat.kept_fraction_p50
    ]
