"""The report's tables as text cells: persisted rows, formatted. Pure."""

from analyzer.read.runs import Run
from analyzer.results import sentences, verdict_sentence
from analyzer.results.confidence import ROLES, ceiling_or_floor, nothing_safe
from analyzer.results.length_bins import Bin
from analyzer.results.number_format import (
    NOTHING,
    budget,
    cache_share,
    count,
    interval,
    number,
    percent,
    seconds,
    signed,
)
from analyzer.results.results import ALL, Results
from analyzer.results.telling_answers import cut
from analyzer.results.text_table import Table, table
from analyzer.store.tables import BinStat, Evidence, Verdict
from kvt_async.contract.errors import FailureLabel
from kvt_async.contract.vocabulary import EvidenceStatus, SeriesVerdict, Unit

WHOLE = Bin(ALL, 0, 0)
IN_A_CELL = 80  # characters of a text
_NO_ZONE: dict[str, str] = {SeriesVerdict.TRANSITION: "open below", SeriesVerdict.CANNOT_TELL: "not proven"}


def verdicts(results: Results) -> Table:
    rows = []
    for series in results.series:
        v = results.verdict(series)
        if v is None:
            continue
        unit = results.unit_of(series)
        half = _half(v, unit) if v.half_loss_budget is not None else NOTHING
        zone = (
            f"{cache_share(v.zone_high, unit)} … {cache_share(v.broken, unit)}"
            if v.broken is not None
            else _NO_ZONE.get(v.verdict, NOTHING)
        )
        safe = "none proven" if nothing_safe(v) else cache_share(v.safe_budget, unit)
        rows.append(
            {
                "Series": series,
                "Verdict": verdict_sentence.in_few_words(v, unit),
                "Safe budget": safe,
                "Transition zone": zone,
                "Real loss from": cache_share(v.loss, unit),
                "Half of the loss at [95% CI]": half,
                "Pairs": count(v.n),
                "Evidence": _evidence(v.evidence),
                "Role": ROLES.get(v.role, v.role),
                "Limit": ceiling_or_floor(v) or NOTHING,
            }
        )
    note = (
        "Pairs: examples answered at full cache and at the budget. Holm-adjusted: tested more strictly, because there "
        "are several series. Ceiling: full cache is always right; floor: at the smallest budgets nothing is left."
    )
    return table(rows, text_columns=2, note=note if rows else "")


def _half(v: Verdict, unit: str) -> str:
    in_words = percent if unit == Unit.FRACTION else count
    at, low, high = (in_words(end) for end in (v.half_loss_budget, v.half_loss_ci_low, v.half_loss_ci_high))
    return f"{at} [{low}, {high}]"


def safe_by_length(results: Results) -> Table:
    """Series x length bins: safe budget, and from where it is broken."""
    rows = []
    for series in results.series:
        cells = []
        for b in results.bins:
            v = results.verdict(series, b.bin_idx)
            if v is None or v.n == 0:
                cells.append("no examples")
            elif not v.judges:
                cells.append("no verdict")
            else:
                safe = "none" if nothing_safe(v) else cache_share(v.safe_budget, results.unit_of(series))
                cells.append(f"{safe} / {cache_share(v.broken, results.unit_of(series))}")
        rows.append((series, *cells))
    note = (
        "Safe budget / broken from, within each bin. “none”: no budget is proven safe there; –: none is proven broken. "
        "Exploratory: bins are not adjusted for being many."
    )
    return Table(("Prompt tokens", *(b.label for b in results.bins)), tuple(rows), note=note)


def levels(results: Results) -> Table:
    """Every level over all lengths: accuracy, paired loss, what was kept, was it applied."""
    rows = []
    full = results.stat(results.full)
    for run in results.runs:
        s, d, e = results.stat(run), results.drop(run), results.evidence.get(run.run_id)
        if s is None:
            continue
        rows.append(
            {
                "Series": run.series + (f" (A/A {run.repeat_idx})" if run.repeat_idx else ""),
                "Budget asked": budget(run.kv_budget, run.kv_unit),
                "Accuracy [95% CI]": interval(s.acc_mean, s.acc_ci_low, s.acc_ci_high),
                "Of full cache": percent(sentences.ratio(s.acc_mean, full.acc_mean if full else None)),
                "Loss against full [95% CI]": interval(d.drop_mean, d.drop_ci_low, d.drop_ci_high) if d else NOTHING,
                **_against_constrained(results, run),
                "Worse / better pairs": f"{d.n_worse or 0} / {d.n_better or 0}" if d and d.n else NOTHING,
                "Failed": percent(s.fail_rate, 1),
                "Same text as full": percent(s.identical_to_full),
                "Budget applied": applied(run, s, e),
                "Kept tokens p50": count(s.kept_tokens_p50),
                "Evidence": _evidence(e.status) if e else NOTHING,
            }
        )
    note = (
        "Of full cache: accuracy relative to full cache's. Budget applied: the effective one, as the server shows it "
        "(median); –: nothing shows it."
    )
    return table(rows, note=note)


def _against_constrained(results: Results, run: Run) -> dict[str, str]:
    """A column beside the loss against full cache, in every row where full cache was run under other restrictions."""
    if results.constrained is None:
        return {}
    c = results.against_constrained(run)
    loss = interval(c.diff_mean, c.diff_ci_low, c.diff_ci_high) if c and c.n else NOTHING
    return {f"Loss against {results.constrained.series}": loss}


def applied(run: Run, stat: BinStat, evidence: Evidence | None) -> str:
    """The effective budget: what evidence shows, and as a share where the budget is a cap in tokens."""
    if run.is_full or run.is_constrained:
        return "all"
    if evidence is None or evidence.effective_p50 is None:
        return NOTHING
    text = cache_share(float(f"{evidence.effective_p50:.3g}"), run.kv_unit)
    share = stat.kept_fraction_p50
    return text if run.kv_unit == Unit.FRACTION or share is None else f"{text} ({percent(share)} kept)"


def _evidence(status: str) -> str:
    """A status of the evidence as a table shows it: in capitals where the budget is not proven."""
    return status.upper() if status in (EvidenceStatus.UNVERIFIED, EvidenceStatus.CONTRADICTED) else status


def comparisons(results: Results, alpha: float) -> Table:
    """Pairs of series x budgets: difference of accuracy; a star where it is certain after Holm."""
    budgets = sorted({c.kv_budget for c in results.comparisons if c.bin_idx == ALL}, reverse=True)
    cells: dict[tuple[str, str], dict[float, str]] = {}
    first = results.series[0] if results.series else ""
    for c in sorted(results.comparisons, key=lambda c: c.series_a != first):
        if c.bin_idx == ALL and c.diff_mean is not None:
            star = " *" if c.p_holm is not None and c.p_holm < alpha else ""
            text = f"{signed(c.diff_mean)} [{number(c.diff_ci_low)}, {number(c.diff_ci_high)}]{star}"
            cells.setdefault((c.series_a, c.series_b), {})[c.kv_budget] = text
    rows = [(f"{a} − {b}", *(row.get(k, NOTHING) for k in budgets)) for (a, b), row in cells.items()]
    note = (
        f"Paired difference of accuracy [95% CI]; * certain at {number(alpha)} after Holm's adjustment: over all rows "
        f"of {first}, and over all others."
    )
    return Table(("Series", *(cache_share(b, results.unit) for b in budgets)), tuple(rows), note=note)


def error_budget(results: Results) -> Table:
    """Where answers went wrong in form: a rate per label of a level's finished requests; clean levels are counted."""
    rows, clean = [], 0
    rare, held = FailureLabel.EARLIER_TURN_FAILED, {k for s in results.stats.values() for k, n in s.labels.items() if n}
    kinds = [k for k in FailureLabel if k != rare or k in held]  # only conversations know it
    total = dict.fromkeys(kinds, 0)
    everything, failed_in_all = 0, 0
    for run in results.runs:
        stats = _bins(results, run)
        n, failed = sum(s.n for s in stats), sum(s.n_failures for s in stats)
        labels = {k: sum(s.labels.get(k, 0) for s in stats) for k in kinds}
        everything, failed_in_all = everything + n, failed_in_all + failed
        total = {k: total[k] + labels[k] for k in kinds}
        if n and (failed or any(labels.values())):
            rows.append((level_name(run), count(n), _rate(failed, n), *(_rate(labels[k], n) for k in kinds)))
        elif n:
            clean += 1
    if everything:
        cells = [_rate(total[k], everything) for k in kinds]
        rows.insert(0, ("all levels", count(everything), _rate(failed_in_all, everything), *cells))
    names = {
        "EMPTY_OUTPUT": "Empty",
        "REFUSAL": "Refusal",
        "ENGINE_ERROR": "Engine",
        "TIMEOUT": "Timeout",
        "FORMAT_ERROR": "Format",
        "TRUNCATED": "Truncated",
        "CONTEXT_OVERFLOW": "Overflow",
        "EARLIER_TURN_FAILED": "Earlier turn",
        "UNKNOWN_FAILURE": "Unknown",
    }
    note = "A label may also mark an answered request, which keeps its score; only “failed” requests have no answer."
    if clean:
        note = f"Levels without any failure or label, not listed: {clean}. {note}"
    return Table(("Level", "Finished", "Failed", *(names[k] for k in kinds)), tuple(rows), note=note)


def flags(results: Results) -> Table:
    """How often answers carry a flag that is no failure."""
    names = sorted({f for s in results.stats.values() for f in s.flags})
    rows = []
    for run in results.runs:
        stats = _bins(results, run)
        n = sum(s.n for s in stats)
        if n and names:
            rows.append((level_name(run), *(_rate(sum(s.flags.get(f, 0) for s in stats), n) for f in names)))
    return Table(("Level", *(f.replace("_", " ") for f in names)), tuple(rows))


def control(results: Results) -> Table:
    rows = []
    for b in [*results.bins, WHOLE]:
        for d in results.control_drops(b.bin_idx):
            if d.n:
                flips = (d.n_worse or 0) + (d.n_better or 0)
                run = next(r for r in results.runs if r.run_id == d.run_id)
                same = results.stat(run, b.bin_idx)
                rows.append(
                    {
                        "Prompt tokens": b.label,
                        "Repeat": str(d.repeat_idx),
                        "Pairs": count(d.n),
                        "Score flips": f"{flips} ({percent(flips / d.n, 1)})",
                        "Worse / better": f"{d.n_worse or 0} / {d.n_better or 0}",
                        "Difference [95% CI]": interval(d.drop_mean, d.drop_ci_low, d.drop_ci_high),
                        "Same text": percent(same.identical_to_full) if same else NOTHING,
                    }
                )
    return table(rows)


def run_bins(results: Results) -> Table:
    rows = []
    for run in results.runs:
        for b in [*results.bins, WHOLE]:
            s, base = results.stat(run, b.bin_idx), results.stat(results.full, b.bin_idx)
            if s is None:
                continue
            rows.append(
                {
                    "Series": run.series + (f" (A/A {run.repeat_idx})" if run.repeat_idx else ""),
                    "Budget": budget(run.kv_budget, run.kv_unit),
                    "Prompt tokens": b.label,
                    "n": count(s.n),
                    "Contexts": count(s.n_clusters),
                    "Accuracy [95% CI]": interval(s.acc_mean, s.acc_ci_low, s.acc_ci_high),
                    "EM": number(s.em_mean),
                    "F1": number(s.f1_mean),
                    "Of full cache": percent(sentences.ratio(s.acc_mean, base.acc_mean if base else None)),
                    "Accuracy, answered": number(s.acc_answered),
                    "Kept tokens p50": count(s.kept_tokens_p50),
                    "Failure rate [95% CI]": interval(s.fail_rate, s.fail_ci_low, s.fail_ci_high, 3),
                    "Latency p50": seconds(s.latency_p50_s),
                    "Latency p95": seconds(s.latency_p95_s),
                    "TTFT p50": seconds(s.ttft_p50_s),
                    "TPOT p50": seconds(s.tpot_p50_s),
                }
            )
    return table(rows, text_columns=3, folded=f"All {len(rows)} rows, run by run and bin by bin")


def step_rule(results: Results) -> Table:
    """What the step rule finds in each series, beside the verdict."""
    rows = []
    for series in results.series:
        v = results.verdict(series)
        if v is None:
            continue
        where = next((b.label for b in results.bins if b.bin_idx == v.transition_bin_idx), NOTHING)
        none = v.transition_budget is None
        rows.append(
            (
                series,
                "none"
                if none
                else f"{cache_share(v.pre_budget, results.unit)} → {cache_share(v.transition_budget, results.unit)}",
                NOTHING if none else f"{number(v.acc_pre)} → {number(v.acc_post)}",
                NOTHING if none else number(v.drop),
                NOTHING if none else where,
            )
        )
    return Table(("Series", "Step", "Accuracy", "Drop", "Largest in bin"), tuple(rows))


def _bins(results: Results, run: Run) -> list[BinStat]:
    return [s for b in results.bins if (s := results.stat(run, b.bin_idx)) is not None]


def level_name(run: Run) -> str:
    if run.is_full:
        return "full cache" + (f" (A/A {run.repeat_idx})" if run.repeat_idx else "")
    if run.is_constrained:
        return run.series
    return f"{run.series} {budget(run.kv_budget, run.kv_unit)}"


def _rate(k: int, n: int) -> str:
    return "0" if k == 0 else f"{k:,} ({percent(k / n, 1)})"


def changed_answers(results: Results) -> Table:
    """The telling answers in a line each."""
    rows = [
        {
            "Level": t.level,
            "Prompt tokens": t.length,
            "Example": t.example,
            "Question": cut(t.question, IN_A_CELL),
            "Gold": cut(t.golds, IN_A_CELL),
            "Full cache": cut("".join(piece.text for piece in t.full), IN_A_CELL) or "(empty)",
            "This level": cut("".join(piece.text for piece in t.here), IN_A_CELL) or "(empty)",
            "Score": t.scores,
        }
        for t in (results.telling.rows if results.telling else ())
    ]
    return table(rows, text_columns=7)
