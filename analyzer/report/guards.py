"""What a report refuses to be made of: results that are not analysed, stale, contradicted, or of another question."""

from analyzer.results.number_format import budget, listed, number
from analyzer.results.results import Results, refuse_older
from kvt_async.contract.errors import ContradictedError, MissingPrerequisiteError
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EvidenceStatus

ANALYZE = "Run `kvt analyze -c CONFIG` first."


def guard(results: Results, *, partial: bool) -> None:
    """Refuse results from which a report would be wrong or stale. Raises MissingPrerequisiteError, or ContradictedError
    where a server applied another budget than asked."""
    if not results.stats or (results.series and not results.verdicts):
        raise MissingPrerequisiteError(
            "there is nothing to report: the results have not been analysed", where=results.group, do=ANALYZE
        )
    refuse_older(results)
    rows = [(run, results.evidence.get(run.run_id)) for run in results.runs]
    bad = [(run, row) for run, row in rows if row and row.status == EvidenceStatus.CONTRADICTED]
    if bad:
        raise ContradictedError(
            "the server applied another KV budget than asked, so no report is written",
            where=results.group,
            details=tuple(
                f"{r.series} {budget(r.kv_budget, r.kv_unit)}: asked {number(e.requested, 3)}, applied "
                f"{number(e.effective_p50, 3)} (median; {e.n_off} of {e.n} responses off)"
                for r, e in bad
            ),
            do="Fix how the budget reaches the server (kv.apply) or how it is read (kv.evidence), then sweep anew.",
        )
    if results.pending and not partial:
        raise MissingPrerequisiteError(
            f"{results.pending:,} requests have no outcome yet",
            where=results.group,
            do="Run `kvt sweep -c CONFIG` to finish them, or pass --partial.",
        )
    if not partial:
        _fresh(results)


def same_question(results: Results, settings: Settings) -> None:
    """Refuse another margin or alpha in the config than the stored verdicts were made with."""
    analysis, made = settings.analysis, [v.asked for v in results.verdicts if "margin" in v.asked]
    for name, asked in (
        ("margin", f"{analysis.margin:g}"),
        ("margin_kind", analysis.margin_kind),
        ("alpha", f"{analysis.alpha:g}"),
    ):
        values = [method.get(name, "absolute") for method in made]  # an absolute margin has no kind stored
        stored = {value if isinstance(value, str) else f"{value:g}" for value in values}
        if stored - {asked}:
            raise MissingPrerequisiteError(
                f"the stored verdicts were made with analysis.{name} {listed(sorted(stored))}, the config says {asked}",
                where=results.group,
                do="Run `kvt analyze -c CONFIG` first, or set it back.",
            )


def _fresh(results: Results) -> None:
    """Refuse an analysis that leaves out finished requests."""
    for run in results.runs:
        done = results.progress[run.run_id]
        counted = sum(s.n for b in results.bins if (s := results.stat(run, b.bin_idx)))
        if counted != done.responses + done.failures:
            raise MissingPrerequisiteError(
                f"the analysis is older than the results: {run.series} {budget(run.kv_budget, run.kv_unit)} has "
                f"{done.responses + done.failures:,} outcomes, {counted:,} were analysed",
                where=results.group,
                do=ANALYZE,
            )
