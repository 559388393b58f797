"""The report's figures as JSON-able values, by the names of their columns: what a script reads of a verdict. Pure."""

from dataclasses import asdict
from typing import Any

from analyzer.read.runs import Run
from analyzer.report.answers import first_screen
from analyzer.report.suite_answers import suite_screen
from analyzer.results.decode_words import decode_levels
from analyzer.results.outcome_words import outcomes
from analyzer.results.results import ALL, Results
from analyzer.results.suite_results import SuiteResults
from analyzer.store.suite_tables import SuiteStat, SuiteVerdict
from analyzer.store.tables import columns
from kvt_async.contract.settings import Settings

_VERDICT = (
    "verdict",
    "verdict_text",
    "role",
    "evidence",
    "n",
    "n_needed",
    "acc_full",
    "safe_budget",
    "collapse_budget",
    "collapse_margin_budget",
    "zone_low",
    "zone_high",
    "half_loss_budget",
    "half_loss_ci_low",
    "half_loss_ci_high",
)
_STAT = (
    "n",
    "acc_mean",
    "acc_ci_low",
    "acc_ci_high",
    "acc_answered",
    "n_failures",
    "fail_rate",
    "identical_to_full",
    "kept_fraction_p50",
    "kept_tokens_p50",
    "latency_p50_s",
    "ttft_p50_s",
    "tpot_p50_s",
    "cached_share",
)
_DROP = (
    "drop_mean",
    "drop_ci_low",
    "drop_ci_high",
    "n_worse",
    "n_better",
    "p_safe",
    "p_loss",
    "p_collapse",
    "drop_failures",
    "drop_answers",
    "drop_cut_off",
    "drop_wrong",
    "within_noise",
)
_OUTCOME = ("n", "full_value", "value", "change", "change_ci_low", "change_ci_high", "p_holm")


def figures(results: Results, settings: Settings) -> dict[str, Any]:
    """Headline, alarms, the verdict of every series (and of its length bins), and every level's figures.

    Over all lengths unless named otherwise; None where a figure is not known. Budgets are in `unit`.
    """
    screen = first_screen(results, settings)
    return {
        "headline": screen.headline,
        "caveats": list(screen.caveats),
        "metric": results.metric,
        "own_metric": results.own_metric,
        "unit": results.unit,
        "margin": settings.analysis.margin,
        "margin_kind": settings.analysis.margin_kind,
        "alpha": settings.analysis.alpha,
        "partial": results.partial,
        "pending": results.pending,
        "prompts": asdict(results.prompts) | {"read_short": results.prompts.are_short},
        "series": [
            {
                "series": series,
                **_picked(results.verdict(series), _VERDICT),
                "by_length": [asdict(b) | _picked(results.verdict(series, b.bin_idx), _VERDICT) for b in results.bins],
            }
            for series in results.series
        ],
        "levels": [_level(results, run) for run in results.runs],
    }


def suite_figures(suite: SuiteResults, settings: Settings) -> dict[str, Any]:
    """The same over several tasks: headline, the verdict and levels over them, and the figures of each."""
    screen = suite_screen(suite, settings)
    return {
        "headline": screen.headline,
        "caveats": list(screen.caveats),
        "unit": suite.unit,
        "margin": settings.analysis.margin,
        "alpha": settings.analysis.alpha,
        "partial": suite.partial,
        "pending": suite.pending,
        "left_out": suite.left_out,
        "suite": [_picked(v, columns(SuiteVerdict)) | {"tasks": v.tasks, "broken": v.broken} for v in suite.verdicts],
        "suite_levels": [_picked(row, columns(SuiteStat)) | {"broken": row.broken} for row in suite.stats],
        "tasks": {task.task: figures(task, settings) for task in suite.tasks},
    }


def _level(results: Results, run: Run) -> dict[str, Any]:
    evidence = results.evidence.get(run.run_id)
    return {
        "run_id": run.run_id,
        "series": run.series,
        "kv_budget": run.kv_budget,
        "kv_unit": run.kv_unit,
        "is_full": bool(run.is_full),
        "repeat_idx": run.repeat_idx,
        **_picked(results.stat(run, ALL), _STAT),
        **_picked(results.drop(run, ALL), _DROP),
        "is_constrained": run.is_constrained,
        "against_constrained": _against_constrained(results, run),
        "outcomes": {measure: _picked(row, _OUTCOME) for measure, row in outcomes(results, run).items()},
        "evidence": evidence.status if evidence else None,
        "evidence_reason": evidence.reason if evidence else None,
        **({"while_generating": while_generating} if (while_generating := _while_generating(results, run)) else {}),
    }


def _against_constrained(results: Results, run: Run) -> dict[str, Any] | None:
    """What a level loses against full cache under its other restrictions; None: that was not run."""
    c = results.against_constrained(run)
    if c is None:
        return None
    loss = {"n": c.n, "drop_mean": c.diff_mean, "drop_ci_low": c.diff_ci_low, "drop_ci_high": c.diff_ci_high}
    return loss | {"p": c.p, "p_holm": c.p_holm}


def _while_generating(results: Results, run: Run) -> dict[str, Any]:
    """What a budget that applies while answers are generated did; {} of others."""
    level = next((d for d in decode_levels(results) if (d.series, d.budget) == (run.series, run.kv_budget)), None)
    return {} if level is None else {k: v for k, v in asdict(level).items() if k not in ("series", "budget", "unit")}


def _picked(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The named columns of a row; None for a column without a value, and for every column where there is no row."""
    return {name: getattr(row, name) if row is not None else None for name in names}
