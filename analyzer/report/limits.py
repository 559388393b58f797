"""What may make a verdict wrong, what limits a figure beside it, and what these numbers can't say. Pure."""

from analyzer.report import certainty, costs, sentences
from analyzer.report.facts import Facts
from analyzer.report.wording import number, percent, plural
from kvt_async.contract.settings import Settings

REFERENCE = "reference"  # the model that ships with kvt


def alarms(facts: Facts, margin: float) -> list[str]:
    """What must stand above every verdict."""
    found = []
    if facts.partial:
        found.append(sentences.partial(facts.pending, facts.requests))
    labels = [s for s in facts.series if any(e.status == "unverified" for e in facts.statuses(s))]
    if labels:
        which = "" if labels == facts.series else f" ({', '.join(labels)})"
        found.append(f"UNVERIFIED{which}: {sentences.UNVERIFIED}.")
    if any(c["verdict"] == "dead" for c in facts.canaries):
        found.append(
            "DEAD KNOB: before the sweep, the smallest budget gave the same answers as full cache. It was run all the "
            "same (--allow-dead-knob): a flat line below shows an ignored setting, not robustness."
        )
    if facts.drifts:
        seen = plural(len({one.session_id for one in facts.drifts}), "session")
        found.append(
            f"DRIFT: the server became another one in {seen} ({facts.drifts[0].what}). It was analysed all the same "
            "(analysis.allow_drift): a difference between budgets may be one between servers."
        )
    full = facts.stat(facts.full)
    if full is not None and full.n_failures > margin / 2 * full.n:
        found.append(
            f"FAILED AT FULL CACHE: {full.n_failures:,} of {plural(full.n, 'request')} "
            f"({percent(full.n_failures / full.n, 1)}). They score 0 there, so every loss below looks smaller than it "
            "is. “Safe” was also required of the pairs that full cache answered."
        )
    wrong = [s for s in facts.series if any(e.status == "contradicted" for e in facts.statuses(s))]
    if wrong:
        found.append(f"CONTRADICTED ({', '.join(wrong)}): the server applied another budget than asked.")
    return found


def caveats(facts: Facts) -> list[str]:
    """What doesn't touch the verdict, but a figure beside it."""
    if any(c.verdict != "client-clean" for c in facts.clients):
        return [f"Latencies are not the server's alone: {costs.client(facts.clients)}."]
    return []


def limits(facts: Facts, settings: Settings) -> list[str]:
    """What these numbers can't say."""
    lines = []
    models = {r.model_name for r in facts.runs}
    if REFERENCE in models:
        lines.append(
            "The reference model is tiny: it has no attention redundancy, so its curves are steeper than a large "
            "model's. It shows the method, not the budget of your model."
        )
    tasks = ", ".join(f"{d['name']} / {d['task']}" for d in facts.datasets)
    if tasks:
        lines.append(f"One task ({tasks}): another task may break elsewhere.")
    whole = [v for series in facts.series if (v := facts.verdict(series)) is not None]
    lines += certainty.notes(whole)
    full = facts.stat(facts.full)
    if full is None:
        lines.append("Without a full-cache run there is no baseline, so no loss can be told.")
    elif full.acc_mean is not None and full.acc_mean <= settings.analysis.margin:
        lines.append(f"Floor: accuracy at full cache is {number(full.acc_mean)}, so nothing can be lost from it.")
    empty = [
        b.label for b in facts.bins if all((s := facts.stat(r, b.bin_idx)) is None or s.n == 0 for r in facts.runs)
    ]
    if empty:
        lines.append(f"No examples in {', '.join(empty)} tokens.")
    planned = max((p.planned for p in facts.progress.values()), default=0)
    asked = max((p.requests for p in facts.progress.values()), default=0)
    if asked < planned:
        lines.append(f"{asked:,} of {plural(planned, 'manifest example')} were asked per level.")
    return lines
