"""What may make a verdict itself wrong: said above it in the report, on the terminal, in JSON, by `kvt check` and, in a
few words, on every chart. Pure."""

from dataclasses import dataclass

from analyzer.results import sentences
from analyzer.results.confidence import margin_in_score
from analyzer.results.decode_words import no_evidence
from analyzer.results.node_words import unlike_nodes
from analyzer.results.number_format import cache_kept, listed, percent, plural
from analyzer.results.results import Results
from analyzer.results.series_names import series_name
from kvt_async.contract.vocabulary import CanaryVerdict, EvidenceStatus

PARTIAL = "PARTIAL"
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


def alarms(results: Results) -> list[Alarm]:
    """Every alarm that stands, the heaviest first; none where nothing speaks against the verdict."""
    return [
        alarm
        for alarm in (
            _partial(results),
            _read_short(results),
            _unverified(results),
            _no_evidence(results),
            _dead_knob(results),
            _drift(results),
            _differences(results),
            _unlike_nodes(results),
            _failed_at_full(results),
            _contradicted(results),
        )
        if alarm is not None
    ]


def _partial(results: Results) -> Alarm | None:
    if not results.partial:
        return None
    name, _, says = sentences.partial(results.pending, results.requests).partition(": ")
    if refused := sum(p.refused for p in results.progress.values()):
        says += f" {refused:,} were refused for the key or the quota, which says nothing about them: not counted."
    behind = [
        f"{series_name(series)} with {cache_kept(level['budget'], results.unit_of(series))} "
        f"({level['answers']:,} of {plural(level['planned'], 'answer')})"
        for series in results.series
        if (v := results.verdict(series)) is not None
        for level in v.left_out
    ]
    if behind:
        says += f" Left out of the verdicts: {listed(behind)}."
    return Alarm(name, says, f"{results.pending:,} of {results.requests:,} requests pending")


def _read_short(results: Results) -> Alarm | None:
    counts = results.prompts
    if not counts.are_short:
        return None
    short = f"{counts.share} read shorter than sent"
    return Alarm(READ_SHORT, f"{counts.sentence}. Nothing is claimed of any of them.", short)


def _unverified(results: Results) -> Alarm | None:
    """The series whose budget is a label or was only configured. Evidence that was taken back (prompts read short, a
    second server) has another alarm."""
    reasons = {
        series: sentences.why_unverified(rows)
        for series in results.series
        if (rows := [e for e in results.statuses(series) if e.status == EvidenceStatus.UNVERIFIED])
    }
    labels = [series for series, why in reasons.items() if why in (sentences.UNVERIFIED, sentences.CONFIGURED)]
    if not labels:
        return None
    which = "" if labels == results.series else f" ({', '.join(labels)})"
    why = reasons[labels[0]] if len({reasons[series] for series in labels}) == 1 else sentences.UNVERIFIED
    return Alarm(f"UNVERIFIED{which}", f"{why}.", why.replace(";", ","))


def _no_evidence(results: Results) -> Alarm | None:
    if not (says := no_evidence(results)):
        return None
    short = "hardly any answer was compressed while it was generated"
    return Alarm("NO EVIDENCE", f"{says}. Nothing is claimed of that: it takes 20% of the answers.", short)


def _dead_knob(results: Results) -> Alarm | None:
    if results.overruling is not None or not any(c["verdict"] == CanaryVerdict.DEAD for c in results.canaries):
        return None
    return Alarm(
        "DEAD KNOB",
        "before the sweep, the smallest budget gave the same answers as full cache. It was run all the same "
        "(--allow-dead-knob): a flat line below shows an ignored setting, not robustness.",
        "a destructive budget changed no answer",
    )


def _drift(results: Results) -> Alarm | None:
    if not results.drifts:
        return None
    seen = plural(len({one.session_id for one in results.drifts}), "session")
    return Alarm(
        "DRIFT",
        f"{DIFFERENT} in {seen} ({results.drifts[0].what}). It was analysed all the same (analysis.allow_drift): a "
        "difference between budgets may be one between servers.",
        f"{DIFFERENT} meanwhile",
    )


def _differences(results: Results) -> Alarm | None:
    if not results.differences:
        return None
    return Alarm(
        "DIFFERENT SERVERS",
        f"levels were served by different servers ({results.differences[0].what}): a difference between budgets may be "
        "one between servers.",
        "levels were served by different servers",
    )


def _unlike_nodes(results: Results) -> Alarm | None:
    unlike = unlike_nodes(results)
    if not unlike:
        return None
    which = listed([f"shard {node.shard}'s" for node in unlike])
    return Alarm(
        "UNLIKE SERVERS",
        f"full cache gives other answers on {which} server than on the baseline's ({unlike[0].changed:,} of "
        f"{unlike[0].n:,} differ, {unlike[0].changed_again:,} when the baseline's own is asked again): a difference "
        "between budgets may be one between servers.",
        "levels were served by servers that answer unlike",
    )


def _failed_at_full(results: Results) -> Alarm | None:
    full, asked = results.stat(results.full), next((v.asked for v in results.verdicts if "margin" in v.asked), None)
    if full is None or asked is None:
        return None
    margin = margin_in_score(asked["margin"], asked.get("margin_kind", "absolute"), full.acc_mean or 0.0)
    if full.n_failures <= margin / 2 * full.n:
        return None
    failed = f"{full.n_failures:,} of {plural(full.n, 'request')} ({percent(full.n_failures / full.n, 1)})"
    return Alarm(
        "FAILED AT FULL CACHE",
        f"{failed}. They score 0 there, so every loss below looks smaller than it is. “Safe” was also required of the "
        "pairs that full cache answered.",
        failed,
    )


def _contradicted(results: Results) -> Alarm | None:
    wrong = [s for s in results.series if any(e.status == EvidenceStatus.CONTRADICTED for e in results.statuses(s))]
    if not wrong:
        return None
    short = "the server applied another budget than asked"
    return Alarm(f"CONTRADICTED ({', '.join(wrong)})", f"{short}.", short)
