"""Sentences that limit: what touches a figure beside the verdict, and what these numbers can't say at all. Pure.

How sure a claim is stands in results/confidence; what may make the verdict wrong, in results/alarms.
"""

from analyzer.read.drift import Answers
from analyzer.report.turn_tables import reuse_caveats
from analyzer.results import confidence
from analyzer.results.constrained_words import constrained_sentence
from analyzer.results.decode_words import partly_applied
from analyzer.results.node_words import node_sentence
from analyzer.results.number_format import number, plural
from analyzer.results.results import Results
from analyzer.results.seed_words import seeds_sentence
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CanaryVerdict, Role, When

REFERENCE = "reference"  # the model that ships with kvt
TINY = (
    "The reference model is tiny: it has no attention redundancy, so its curves are steeper than a large model's. It "
    "shows the method, not the budget of your model."
)


def caveats(results: Results) -> list[str]:
    """Sentences about what doesn't touch the verdict but limits a figure beside it."""
    lines = [results.prompts.note] if results.prompts.note else []
    told_apart = constrained_sentence(results)
    if results.setups:
        doubt = "" if told_apart else " A loss may be theirs."
        lines.append(f"Levels differ in more than the budget: {'; '.join(results.setups)}.{doubt}")
    if told_apart:
        lines.append(told_apart)
    if partly := partly_applied(results):
        lines.append(partly)
    if (answers := results.overruling) is not None:
        lines.append(overruled(answers))
    if nodes := node_sentence(results):
        lines.append(nodes)
    if seeds := seeds_sentence(results):
        lines.append(seeds)
    return [*lines, *reuse_caveats(results)]


def overruled(answers: Answers) -> str:
    """Says that the sweep's own answers overrule the canary before it."""
    verdict = {
        CanaryVerdict.DEAD: "the canary's prompts were answered as at full cache",
        CanaryVerdict.INCONCLUSIVE: "the canary could not tell, because full cache did not repeat itself"
        + ("" if answers.when == When.PREFILL else " or its answers were too short"),
    }[answers.verdict]
    p = f"p = {answers.p:.2g}" if answers.p >= 0.001 else "p < 0.001"
    return (
        f"Canary overruled: before the sweep {verdict}, but in the sweep {answers.changed:,} of {answers.n:,} answers "
        f"changed at {answers.level}, and {answers.changed_again:,} when full cache was run again ({p}, paired and "
        "exact): the budget does change answers."
    )


def limits(results: Results, settings: Settings) -> list[str]:
    """Sentences about what these numbers can't say."""
    lines = []
    models = {r.model_name for r in results.runs}
    if REFERENCE in models:
        lines.append(TINY)
    tasks = ", ".join(f"{d['name']} / {d['task']}" for d in results.datasets)
    first = results.verdict(results.series[0]) if results.series else None
    if tasks and (first is None or first.role != Role.EXPLORATORY):
        lines.append(f"One task ({tasks}): another task may break elsewhere.")
    whole = [v for series in results.series if (v := results.verdict(series)) is not None]
    lines += confidence.notes(whole)
    full = results.stat(results.full)
    if full is None:
        lines.append("Without a full-cache run there is no baseline, so no loss can be told.")
    elif full.acc_mean is not None and full.acc_mean <= confidence.margin_in_score(
        settings.analysis.margin, settings.analysis.margin_kind, full.acc_mean
    ):
        lines.append(f"Floor: accuracy at full cache is {number(full.acc_mean)}, so nothing can be lost from it.")
    empty = [
        b.label
        for b in results.bins
        if all((s := results.stat(r, b.bin_idx)) is None or s.n == 0 for r in results.runs)
    ]
    if empty:
        lines.append(f"No examples in {', '.join(empty)} tokens.")
    if alone := sum(volume.n_done_alone for volume in results.volumes):
        answered = sum(volume.n for volume in results.volumes)
        lines.append(
            f"{alone:,} of {plural(answered, 'answer')} ended with [DONE] and no finish_reason: whether one of them "
            "was cut off at its length can't be told."
        )
    own = f"{results.task}: "
    newest = results.sessions[-1].notes if results.sessions else []
    lines += [_sentence(note.removeprefix(own)) for note in newest if results.task and note.startswith(own)]
    planned = max((p.planned for p in results.progress.values()), default=0)
    asked = max((p.requests for p in results.progress.values()), default=0)
    if asked < planned:
        lines.append(f"{asked:,} of {plural(planned, 'manifest example')} were asked per level.")
    return lines


def _sentence(text: str) -> str:
    """`text` as a sentence; a key of the config at its beginning stays as it is written there."""
    begins = text[:1] if "." in text.split(" ", 1)[0] else text[:1].upper()
    return f"{begins}{text[1:]}" + ("" if text.endswith(".") else ".")
