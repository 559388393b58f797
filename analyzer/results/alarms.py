"""What may make a verdict itself wrong: said above it in the report, on the terminal, in JSON, by `kvt check` and, in a
few words, on every chart. Pure."""

from dataclasses import dataclass

from analyzer.results import sentences
from analyzer.results.number_format import percent, plural
from analyzer.results.results import Results
from kvt_async.contract.vocabulary import CanaryVerdict, EvidenceStatus

READ_SHORT, DIFFERENT = "READ SHORT", "the server became another one"


@dataclass(frozen=True)
class Alarm:
    """`name` in capitals, what it means in a sentence, and the same in a few words."""

    name: str
    says: str
    short: str

    @property
    def line(self) -> str:
        return f"{self.name}: {self.says}"

    @property
    def stamp(self) -> str:
        return f"{self.name}: {self.short}"


def alarms(facts: Results) -> list[Alarm]:
    """In the order of their weight; none where nothing speaks against the verdict."""
    return [
        alarm
        for alarm in (
            _partial(facts),
            _read_short(facts),
            _unverified(facts),
            _dead_knob(facts),
            _drift(facts),
            _differences(facts),
            _failed_at_full(facts),
            _contradicted(facts),
        )
        if alarm is not None
    ]


def _partial(facts: Results) -> Alarm | None:
    if not facts.partial:
        return None
    name, _, says = sentences.partial(facts.pending, facts.requests).partition(": ")
    if refused := sum(p.refused for p in facts.progress.values()):
        says += f" {refused:,} were refused for the key or the quota, which says nothing about them: not counted."
    return Alarm(name, says, f"{facts.pending:,} of {facts.requests:,} requests pending")


def _read_short(facts: Results) -> Alarm | None:
    counts = facts.prompts
    if not counts.are_short:
        return None
    short = f"{counts.share} read shorter than sent"
    return Alarm(READ_SHORT, f"{counts.sentence}. Nothing is claimed of any of them.", short)


def _unverified(facts: Results) -> Alarm | None:
    """Series whose budget is a label; what prompts read short or a second server take back is said by another alarm."""
    labels = [
        series
        for series in facts.series
        if (rows := [e for e in facts.statuses(series) if e.status == EvidenceStatus.UNVERIFIED])
        and sentences.why_unverified(rows) == sentences.UNVERIFIED
    ]
    if not labels:
        return None
    which = "" if labels == facts.series else f" ({', '.join(labels)})"
    return Alarm(f"UNVERIFIED{which}", f"{sentences.UNVERIFIED}.", sentences.UNVERIFIED.replace(";", ","))


def _dead_knob(facts: Results) -> Alarm | None:
    if facts.overruling is not None or not any(c["verdict"] == CanaryVerdict.DEAD for c in facts.canaries):
        return None
    return Alarm(
        "DEAD KNOB",
        "before the sweep, the smallest budget gave the same answers as full cache. It was run all the same "
        "(--allow-dead-knob): a flat line below shows an ignored setting, not robustness.",
        "a destructive budget changed no answer",
    )


def _drift(facts: Results) -> Alarm | None:
    if not facts.drifts:
        return None
    seen = plural(len({one.session_id for one in facts.drifts}), "session")
    return Alarm(
        "DRIFT",
        f"{DIFFERENT} in {seen} ({facts.drifts[0].what}). It was analysed all the same (analysis.allow_drift): a "
        "difference between budgets may be one between servers.",
        f"{DIFFERENT} meanwhile",
    )


def _differences(facts: Results) -> Alarm | None:
    if not facts.differences:
        return None
    return Alarm(
        "DIFFERENT SERVERS",
        f"levels were served by different servers ({facts.differences[0].what}): a difference between budgets may be "
        "one between servers.",
        "levels were served by different servers",
    )


def _failed_at_full(facts: Results) -> Alarm | None:
    full, margin = (
        facts.stat(facts.full),
        next((v.asked["margin"] for v in facts.verdicts if "margin" in v.asked), None),
    )
    if full is None or margin is None or full.n_failures <= margin / 2 * full.n:
        return None
    failed = f"{full.n_failures:,} of {plural(full.n, 'request')} ({percent(full.n_failures / full.n, 1)})"
    return Alarm(
        "FAILED AT FULL CACHE",
        f"{failed}. They score 0 there, so every loss below looks smaller than it is. “Safe” was also required of the "
        "pairs that full cache answered.",
        failed,
    )


def _contradicted(facts: Results) -> Alarm | None:
    wrong = [s for s in facts.series if any(e.status == EvidenceStatus.CONTRADICTED for e in facts.statuses(s))]
    if not wrong:
        return None
    short = "the server applied another budget than asked"
    return Alarm(f"CONTRADICTED ({', '.join(wrong)})", f"{short}.", short)
