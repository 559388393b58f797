"""The first screen as data: which sentences answer which question, and of which series.

The sentences are made in results/ (verdict_sentence, sentences, confidence, costs, memory) and in caveats; page and
terminal_verdict are the two renderers.
"""

from dataclasses import dataclass
from enum import StrEnum

from analyzer.read import declared_plan
from analyzer.read.runs import Run
from analyzer.report.caveats import caveats, limits
from analyzer.results import confidence, costs, memory, sentences, verdict_sentence
from analyzer.results.alarms import Alarm, alarms
from analyzer.results.comparison_words import comparison_sentences
from analyzer.results.confidence import nothing_safe
from analyzer.results.decode_words import applied_sentence, compressed_sentences, decode_levels, peak_sentence
from analyzer.results.number_format import cache_kept, cache_share, loss_size
from analyzer.results.outcome_words import outcome_sentences, outcomes
from analyzer.results.results import Results
from analyzer.results.series_names import series_name, series_names
from analyzer.results.zones import bin_zones, constant
from analyzer.store.tables import Verdict
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EvidenceStatus, Role, SeriesVerdict, Unit


class AnswerKey(StrEnum):
    """What a reader asks of a report, in the order of the first screen."""

    CHANGED = "what changed with the KV budget"
    FIRST_TO_BREAK = "which task breaks first"
    WORST_TASK = "how much a single task may lose"
    EVERYWHERE = "whether every task is safe"
    UNTOLD = "which tasks can't tell"
    NOTHING = "where nothing is to lose"
    BREAKS = "where it breaks"
    OTHER_SERIES = "what the verdict on the other series is"
    LENGTHS = "which budget is safe at which length"
    CAUSES = "wrong answers or failures"
    ELSE = "what else changed"
    BUYS = "what a smaller budget buys"
    APPLIED = "whether the budget was applied"
    CERTAINTY = "how sure this is"
    LIMITS = "what limits it"


@dataclass(frozen=True)
class Answer:
    """`claim` answers the question; `details` explain it or go on."""

    key: AnswerKey
    claim: str
    details: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.claim, *self.details)


@dataclass(frozen=True)
class FirstScreen:
    """What a reader sees before any table. Questions without an answer are left out."""

    headline: str
    alarms: tuple[Alarm, ...]  # what may make the verdict itself wrong: above it
    caveats: tuple[str, ...]  # what limits other figures: below it
    answers: tuple[Answer, ...]

    def claims(self, *keys: AnswerKey) -> list[str]:
        return [answer.claim for answer in self.answers if answer.key in keys]


def first_screen(results: Results, settings: Settings) -> FirstScreen:
    """Everything the first screen says, headline series first."""
    margin, alpha = settings.analysis.margin, settings.analysis.alpha
    verdict = results.verdict(results.series[0]) if results.series else None
    lines = {
        AnswerKey.CHANGED: _changed(results, alpha),
        AnswerKey.BREAKS: _breaks(results, loss_size(margin, settings.analysis.margin_kind)),
        AnswerKey.OTHER_SERIES: _other_series(results),
        AnswerKey.LENGTHS: _lengths(results),
        AnswerKey.CAUSES: _causes(results),
        AnswerKey.ELSE: outcome_sentences(results, alpha),
        AnswerKey.BUYS: _buys(results, settings),
        AnswerKey.APPLIED: _applied(results),
        AnswerKey.CERTAINTY: _certainty(results, settings),
        AnswerKey.LIMITS: [*limits(results, settings), _coarse(results)],
    }
    sentences_of = {key: [text for text in texts if text] for key, texts in lines.items()}
    return FirstScreen(
        headline=headline(results, verdict, margin),
        alarms=tuple(alarms(results)),
        caveats=tuple(caveats(results)),
        answers=tuple(Answer(key, texts[0], tuple(texts[1:])) for key, texts in sentences_of.items() if texts),
    )


def headline(results: Results, verdict: Verdict | None, margin: float) -> str:
    """The verdict of the first series, with what holds at which length, or why there is none."""
    if not results.series:
        return f"{verdict_sentence.ONLY_FULL} {results.rescored}".rstrip()
    if verdict is None:
        return f"{series_name(results.series[0])}: no verdict was computed."
    full = results.stat(results.full)
    if full is not None and full.n and full.n_failures == full.n:
        return verdict_sentence.all_failed(verdict.series, full.n)
    by_length = [(b, v) for b in results.bins if (v := results.verdict(verdict.series, b.bin_idx)) is not None]
    lengths = verdict_sentence.at_lengths(verdict, by_length, results.unit)
    sentence = verdict_sentence.verdict(verdict, results.unit, margin, lengths)
    doubted = verdict.evidence == EvidenceStatus.UNVERIFIED and verdict.verdict != SeriesVerdict.UNVERIFIED
    other = declared_plan.sentences(verdict.asked, verdict.series)
    unsure = "Unverified, " if doubted else ""
    said = f"{unsure}{series_name(verdict.series)}: {sentence[0].lower()}{sentence[1:]}"
    return " ".join(text for text in (said, results.rescored, other) if text)


def _changed(results: Results, alpha: float) -> list[str]:
    if not results.series:
        return []
    first, full = results.series[0], results.stat(results.full)
    return [
        sentences.what_changed(first, full, results.paired(first), results.unit, results.verdict(first)),
        *compressed_sentences(results),
        *comparison_sentences(results.comparisons, first, alpha, results.unit),
    ]


def _breaks(results: Results, m: str) -> list[str]:
    """How far the headline's zone is open, and whether a ratio or a number of tokens decides."""
    first = results.verdict(results.series[0]) if results.series else None
    half = sentences.half_of_loss(first, results.unit)
    zone = _zone(first, results.unit, m)
    open_zone = first if first and first.verdict == SeriesVerdict.TRANSITION and not nothing_safe(first) else None
    at_ratio = [s for s in results.series if constant(results, s) == Unit.FRACTION]
    return [
        zone,
        half,
        confidence.needs(open_zone, results.unit, m).strip() if open_zone else "",
        *(sentences.breaks_at_tokens(s, bin_zones(results, s), constant(results, s)) for s in results.series),
        sentences.breaks_at_ratio(at_ratio),
    ]


def _zone(v: Verdict | None, unit: str, m: str) -> str:
    """What lies between safe and broken; empty where one of them is not there."""
    if v is None or v.broken is None:
        return ""
    top = "full cache" if nothing_safe(v) else cache_share(v.zone_high, unit)
    between = f"between {top} and {cache_kept(v.broken, unit)}"
    return f"Transition zone: {between}. There, neither a loss below {m} is proven nor one beyond it."


def _other_series(results: Results) -> list[str]:
    """The verdicts of the series after the first; those with the same verdict share a part of the sentence."""
    names_of: dict[str, list[str]] = {}
    for series in results.series[1:]:
        if (v := results.verdict(series)) is not None:
            names_of.setdefault(verdict_sentence.in_few_words(v, results.unit_of(series)), []).append(series)
    others = [f"{series_names(names)}: {text}" for text, names in names_of.items()]
    return [f"Other series. {'; '.join(others)}."] if others else []


def _lengths(results: Results) -> list[str]:
    """A line for each series; series with the same line share it."""
    if len(results.bins) < 2:
        return []
    by_text: dict[str, list[str]] = {}
    for series in results.series:
        rows = [(b, v) for b in results.bins if (v := results.verdict(series, b.bin_idx)) is not None]
        if rows:
            by_text.setdefault(sentences.safe_by_length("", rows, results.unit_of(series)), []).append(series)
    every = len(by_text) == 1 and len(results.series) > 2
    return [f"{'every series' if every else series_names(names)}{text}" for text, names in by_text.items()]


def _causes(results: Results) -> list[str]:
    lines = []
    for series in results.series[:1]:
        for smallest in results.judged_levels(series)[-1:]:
            v = results.verdict(series)
            drop, stat = results.drop(smallest), results.stat(smallest)
            proven = v is not None and v.loss is not None
            loss = sentences.Loss(series, smallest.kv_budget, drop, stat, proven)
            lines.append(sentences.failures_or_answers(loss, results.unit))
    return [*lines, sentences.failed_requests([s for r in results.runs if (s := results.stat(r))])]


def chosen_level(results: Results, series: str) -> Run | None:
    """The level that stands for what a smaller budget buys: the safe budget, else the largest one below full cache."""
    levels = results.judged_levels(series)
    v = results.verdict(series)
    if v is not None and not nothing_safe(v):
        return next((r for r in levels if r.kv_budget == v.safe_budget), levels[0] if levels else None)
    return levels[0] if levels else None


def _buys(results: Results, settings: Settings) -> list[str]:
    if not results.series:
        return []
    series = results.series[0]
    run = chosen_level(results, series)
    if run is None:
        return []
    full, stat = results.stat(results.full), results.stat(run)
    evidence = results.evidence.get(run.run_id)
    level = next((d for d in decode_levels(results) if (d.series, d.budget) == (series, run.kv_budget)), None)
    verified = evidence is None or evidence.status in (EvidenceStatus.VERIFIED, EvidenceStatus.CHANGED)
    lines = [
        peak_sentence(level)
        if level is not None
        else ("" if stat is not None and stat.kv_bytes_p50 is not None else memory.of_bits(results, settings, run))
        or costs.memory(series, run.kv_budget, full, stat, results.unit, verified=verified),
        costs.latency(run.kv_budget, full, stat, results.clients, results.unit, _times(results, run)),
    ]
    measured = [s for r in results.runs if (s := results.stat(r)) and s.latency_p50_s is not None]
    return [*lines, costs.cache_sentence(measured) if measured else "", *memory.serving(results, settings, run)]


def _times(results: Results, run: Run) -> costs.Repeated:
    """A level's times against full cache's, and those of the repeats that met the same cache state as full cache."""
    states = {
        again.run_id: cache_state(stat.cached_share)
        for again in (results.full, *results.controls)
        if again is not None and (stat := results.stat(again)) is not None
    }
    own = states.get(results.full.run_id) if results.full else None
    alike = [again for again in results.controls if states.get(again.run_id) == own]
    return costs.Repeated(outcomes(results, run), [outcomes(results, again) for again in alike])


def _coarse(results: Results) -> str:
    """Says of the latencies on the first screen, once, which are too coarse for this client's own error."""
    run = chosen_level(results, results.series[0]) if results.series else None
    return costs.client_bound(results.stat(results.full), results.stat(run), results.clients)


def _applied(results: Results) -> list[str]:
    if not results.series:
        return []
    full = results.evidence.get(results.full.run_id) if results.full else None
    alike: dict[frozenset[tuple[str, str]], list[str]] = {}
    for series in results.series:
        alike.setdefault(frozenset((e.status, e.source) for e in results.statuses(series)), []).append(series)
    lines = []
    for names in alike.values():
        text = sentences.evidence([e for s in names for e in results.statuses(s)], full)
        lines.append(f"{series_names(names)}: {text}" if len(alike) > 1 else text)
    if while_generating := applied_sentence(results):
        lines = [f"{lines[0]} {while_generating}", *lines[1:]]
    if results.canaries:
        lines.append(sentences.canary(results.canaries, overruled=results.overruling is not None))
    return lines


def _certainty(results: Results, settings: Settings) -> list[str]:
    v = results.verdict(results.series[0]) if results.series else None
    lines = [confidence.control(results.control_drops())]
    for series in results.series:
        if text := confidence.noise(results.paired(series), results.unit_of(series)):
            lines.append(f"{series_name(series)}: {text}")
    if v is not None and v.n and v.verdict != SeriesVerdict.UNVERIFIED:
        holm = [s for s in results.series if (further := results.verdict(s)) and further.role == Role.HOLM]
        lines.append(confidence.promise(v, settings.analysis.alpha, len(results.bins), holm))
        lines.append(
            confidence.spread(v, results.unit, loss_size(settings.analysis.margin, settings.analysis.margin_kind))
        )
    return lines
