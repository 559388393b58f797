"""The first screen: which sentences a reader of this database gets, in which order. Sentences are made elsewhere."""

from dataclasses import dataclass

from analyzer.read import declared_plan
from analyzer.read.runs import Run
from analyzer.report.caveats import caveats, limits
from analyzer.results import confidence, costs, memory, sentences
from analyzer.results.alarms import Alarm, alarms
from analyzer.results.cliff import BinZone, cliff, same_ratio
from analyzer.results.confidence import nothing_safe
from analyzer.results.number_format import listed, number, percent, plural
from analyzer.results.results import ALL, Results
from analyzer.store.tables import BinStat, Drop, Verdict
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CanaryVerdict, EvidenceStatus, Role, SeriesVerdict, Unit

OTHER_SERIES = "Other series."


@dataclass(frozen=True)
class Answer:
    """A question of the first screen and its sentences; `quiet` ones explain, the first ones answer."""

    question: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    headline: str
    alarms: tuple[Alarm, ...]  # what may make the verdict itself wrong: above it
    caveats: tuple[str, ...]  # what limits other figures: below it
    answers: tuple[Answer, ...]


def story(facts: Results, settings: Settings) -> Story:
    """Everything the first screen says, headline series first."""
    margin = settings.analysis.margin
    series = facts.series
    first = series[0] if series else None
    verdict = facts.verdict(first) if first else None
    return Story(
        headline=headline(facts, verdict, margin),
        alarms=tuple(alarms(facts)),
        caveats=tuple(caveats(facts)),
        answers=tuple(
            Answer(question, tuple(line for line in lines if line))
            for question, lines in (
                ("What changed with the KV budget?", _changed(facts, settings.analysis.alpha)),
                ("Where does it break?", _where(facts, number(margin))),
                ("Which budget is safe at which length?", _lengths(facts)),
                ("Wrong answers or failures?", _failures(facts)),
                ("What does a smaller budget buy?", _trade(facts, settings)),
                ("Was the budget applied?", _evidence(facts)),
                ("How sure is this?", _sure(facts, settings)),
                ("What limits it?", [*limits(facts, settings), _coarse(facts)]),
            )
            if any(lines)
        ),
    )


def headline(facts: Results, verdict: Verdict | None, margin: float) -> str:
    if not facts.series:
        return "Only full cache was run: there is no smaller budget to judge."
    if verdict is None:
        return f"{facts.series[0]}: no verdict was computed."
    full = facts.stat(facts.full)
    if full is not None and full.n and full.n_failures == full.n:
        return (
            f"{verdict.series}: no verdict, because every request failed at full cache ({full.n:,} of {full.n:,}): "
            "there are no answers to compare. `kvt status` says why they failed."
        )
    by_length = [(b, v) for b in facts.bins if (v := facts.verdict(verdict.series, b.bin_idx)) is not None]
    lengths = sentences.at_lengths(verdict, by_length, facts.unit)
    sentence = sentences.verdict(verdict, facts.unit, margin, lengths)
    doubted = verdict.evidence == EvidenceStatus.UNVERIFIED and verdict.verdict != SeriesVerdict.UNVERIFIED
    unsure = "Unverified, " if doubted else ""
    other = declared_plan.sentences(
        verdict.asked.get("planned", {}), margin, verdict.asked.get("alpha", 0.0), verdict.series
    )
    return f"{unsure}{verdict.series}: {sentence[0].lower()}{sentence[1:]}{' ' if other else ''}{other}"


def paired(facts: Results, series: str, bin_idx: int = ALL) -> list[tuple[float, Drop]]:
    rows = ((run.kv_budget, facts.drop(run, bin_idx)) for run in facts.levels(series))
    return [(b, d) for b, d in rows if d is not None]


def controls(facts: Results, bin_idx: int = ALL) -> list[Drop]:
    ids = {r.run_id for r in facts.controls}
    return [d for d in facts.drops if d.run_id in ids and d.bin_idx == bin_idx]


def bin_zones(facts: Results, series: str) -> list[BinZone]:
    """Zones of the length bins in kept tokens, short to long; empty where budgets are no ratios."""
    levels = {run.kv_budget: run for run in facts.levels(series)}
    zones = []
    for b in facts.bins if facts.unit == Unit.FRACTION else []:
        v = facts.verdict(series, b.bin_idx)
        if v is None or v.n == 0 or not v.judges:
            continue
        safe = facts.full if nothing_safe(v) else levels.get(v.safe_budget or 0.0)
        broken = levels.get(v.broken) if v.broken is not None else None
        zones.append(
            BinZone(
                b.label,
                1.0 if nothing_safe(v) else v.safe_budget,
                _kept(facts.stat(safe, b.bin_idx)),
                _kept(facts.stat(broken, b.bin_idx)),
            )
        )
    return zones


def _kept(stat: BinStat | None) -> float | None:
    return stat.kept_tokens_p50 if stat else None


def constant(facts: Results, series: str) -> str | None:
    """What resampling says stays the same over lengths: tokens | fraction | unclear; None where it was not asked."""
    v = facts.verdict(series)
    found = v.detail.get("cliff") if v else None
    return found["constant"] if found else None


def _changed(facts: Results, alpha: float) -> list[str]:
    full = facts.stat(facts.full)
    if not facts.series:
        return []
    return [
        sentences.what_changed(s, full, paired(facts, s), facts.unit, facts.verdict(s)) for s in facts.series[:1]
    ] + [sentences.series_compared(facts.comparisons, alpha, facts.unit)]


def _where(facts: Results, m: str) -> list[str]:
    alike: dict[str, list[str]] = {}
    for series in facts.series[1:]:
        if (v := facts.verdict(series)) is not None:
            alike.setdefault(sentences.short_verdict(v, facts.unit), []).append(series)
    others = [f"{listed(names)}: {text}" for text, names in alike.items()]
    first = facts.verdict(facts.series[0]) if facts.series else None
    open_zone = first if first and first.verdict == SeriesVerdict.TRANSITION and not nothing_safe(first) else None
    return [
        confidence.needs(open_zone, facts.unit, m).strip() if open_zone else "",
        *(cliff(s, bin_zones(facts, s), constant(facts, s)) for s in facts.series),
        same_ratio([s for s in facts.series if constant(facts, s) == Unit.FRACTION]),
        f"{OTHER_SERIES} {'; '.join(others)}." if others else "",
    ]


def _lengths(facts: Results) -> list[str]:
    """One line a series; series that say the same share it."""
    if len(facts.bins) < 2:
        return []
    by_text: dict[str, list[str]] = {}
    for series in facts.series:
        rows = [(b, v) for b in facts.bins if (v := facts.verdict(series, b.bin_idx)) is not None]
        if rows:
            by_text.setdefault(sentences.safe_by_length("", rows, facts.unit), []).append(series)
    every = len(by_text) == 1 and len(facts.series) > 2
    return [f"{'every series' if every else listed(names)}{text}" for text, names in by_text.items()]


def _smallest(facts: Results, series: str) -> Run | None:
    levels = facts.levels(series)
    return levels[-1] if levels else None


def _failures(facts: Results) -> list[str]:
    lines = []
    for series in facts.series[:1]:
        if run := _smallest(facts, series):
            drop, stat, v = facts.drop(run), facts.stat(run), facts.verdict(series)
            proven = v is not None and v.loss is not None
            lines.append(sentences.failures_or_answers(series, run.kv_budget, drop, stat, facts.unit, proven=proven))
    total = [s for r in facts.runs if (s := facts.stat(r))]
    failed, n = sum(s.n_failures for s in total), sum(s.n for s in total)
    if n:
        lines.append(f"Over all levels, {failed:,} of {plural(n, 'request')} failed ({percent(failed / n, 1)}).")
    return lines


def chosen_level(facts: Results, series: str) -> Run | None:
    """The level whose trade is told: the safe budget, else the largest one below full cache."""
    levels = facts.levels(series)
    v = facts.verdict(series)
    if v is not None and not nothing_safe(v):
        return next((r for r in levels if r.kv_budget == v.safe_budget), levels[0] if levels else None)
    return levels[0] if levels else None


def _trade(facts: Results, settings: Settings) -> list[str]:
    if not facts.series:
        return []
    series = facts.series[0]
    run = chosen_level(facts, series)
    if run is None:
        return []
    full, here = facts.stat(facts.full), facts.stat(run)
    proof = facts.evidence.get(run.run_id)
    verified = proof is None or proof.status == EvidenceStatus.VERIFIED
    lines = [
        costs.memory(series, run.kv_budget, full, here, facts.unit, verified=verified),
        costs.latency(run.kv_budget, full, here, facts.clients, facts.unit),
    ]
    measured = [s for r in facts.runs if (s := facts.stat(r)) and s.latency_p50_s is not None]
    return [*lines, costs.cache_sentence(measured) if measured else "", *memory.serving(facts, settings, run)]


def _coarse(facts: Results) -> str:
    """Said once of the latencies that the first screen gives: their figure or their difference is too coarse."""
    run = chosen_level(facts, facts.series[0]) if facts.series else None
    return costs.client_bound(facts.stat(facts.full), facts.stat(run), facts.clients)


def _evidence(facts: Results) -> list[str]:
    if not facts.series:
        return []
    full = facts.evidence.get(facts.full.run_id) if facts.full else None
    alike: dict[frozenset[tuple[str, str]], list[str]] = {}
    for series in facts.series:
        alike.setdefault(frozenset((e.status, e.source) for e in facts.statuses(series)), []).append(series)
    lines = []
    for names in alike.values():
        text = sentences.evidence([e for s in names for e in facts.statuses(s)], full)
        lines.append(f"{listed(names)}: {text}" if len(alike) > 1 else text)
    if facts.canaries:
        verdicts = sorted({str(c["verdict"]) for c in facts.canaries})
        meaning: dict[str, str] = {
            CanaryVerdict.ALIVE: "alive (a destructive budget changed the answers)",
            CanaryVerdict.DEAD: "dead (a destructive budget changed nothing)",
            CanaryVerdict.INCONCLUSIVE: "inconclusive (full cache did not repeat itself)",
        }
        overruled = "; overruled by the sweep's own answers" if facts.overruling is not None else ""
        lines.append(f"Canary before the sweep: {', '.join(meaning.get(v, v) for v in verdicts)}{overruled}.")
    return lines


def _sure(facts: Results, settings: Settings) -> list[str]:
    v = facts.verdict(facts.series[0]) if facts.series else None
    lines = [confidence.control(controls(facts))]
    for series in facts.series:
        if text := confidence.noise(paired(facts, series), facts.unit):
            lines.append(f"{series}: {text}")
    if v is not None and v.n and v.verdict != SeriesVerdict.UNVERIFIED:
        level = confidence.level_text(confidence.chance(v, settings.analysis.alpha))
        lines.append(
            f"{plural(v.n, 'pair')} per budget over {plural(len(facts.bins), 'length bin')}; a wrong “safe” or a wrong "
            f"“broken” has a chance of at most {level} each. {_roles(facts, v)}"
        )
        lines.append(confidence.spread(v, facts.unit, number(settings.analysis.margin)))
    return lines


def _roles(facts: Results, first: Verdict) -> str:
    """Which verdicts keep the promised chance of error, and how."""
    holm = [s for s in facts.series if (v := facts.verdict(s)) and v.role == Role.HOLM]
    parts = [f"The overall verdict of {first.series} is confirmatory"]
    if holm:
        parts.append(
            f"those of {listed(holm)} are Holm-adjusted among themselves"
            if len(holm) > 1
            else f"that of {holm[0]} is Holm-adjusted"
        )
    if len(facts.bins) > 1:
        parts.append("single length bins are exploratory (unadjusted: one in many may be wrong)")
    return f"{'; '.join(parts)}."
