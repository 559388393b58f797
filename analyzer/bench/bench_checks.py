"""`kvt check` of a bench: is a latency, a rate or a share of failures proven to be kept, to be missed, or neither?

The tests are those of the report: objectives by exact binomial tests (figures/slo.py), rates by their one-sided bounds.
An assertion that looks at several loads fails falsely with a chance of alpha/2 at most: what fails when one load does
is tested at alpha/2 by the number of loads, and what holds only where all of them do needs no such share. What this
client may have caused is not the server's failing.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from analyzer.bench.bench_analysis import measured
from analyzer.bench.figures.distributions import binomial_cdf, binomial_sf, clopper_pearson
from analyzer.bench.figures.points import Point, finding_of, rate_of
from analyzer.bench.figures.slo import MET, MISSED, OPEN, requests_to_tell
from analyzer.bench.quality.loss_check import check_loss
from analyzer.bench.read import stage_facts
from analyzer.bench.report.bench_verdict import name_of, objective
from analyzer.bench.report.numbers import ms, plain, share
from analyzer.read.runs import newest_generation
from analyzer.read.snapshot import snapshot
from analyzer.stage_answers import CheckResult
from kvt_async.contract.check_settings import Assertion
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.paths import run_paths
from kvt_async.contract.schema import connect_for_reading

if TYPE_CHECKING:
    from kvt_async.contract.settings import Settings

Judgement = tuple[str, str]  # met, missed or cannot tell; and what was found, in words
MOST_REQUESTS = 10_000_000  # beyond it no number is named


def check_bench(settings: "Settings") -> list[CheckResult]:
    """The config's assertions on its benched group, in order; nothing is written.

    Raises MissingPrerequisiteError where nothing was benched, ConfigError for an assertion about a sweep, or about a
    load or level that was not benched.
    """
    group = settings.experiment.exp_group_id
    paths = run_paths(settings.output.runs_dir, group, settings.db.path)
    with closing(connect_for_reading(paths.db)) as conn, snapshot(conn) as reader:
        planned = stage_facts.stages(reader, group, newest_generation(reader, group))
        _, loads, _ = measured(reader, planned, settings.analysis.alpha)
        losses = {
            i: check_loss(assertion, reader, planned, settings.analysis)
            for i, assertion in enumerate(settings.check)
            if assertion.kind == "max_drop"
        }
    if not loads:
        raise MissingPrerequisiteError("nothing was measured yet", do="Run `kvt bench -c CONFIG` first.")
    return [
        losses[i] if i in losses else _evaluate(assertion, loads, settings.analysis.alpha)
        for i, assertion in enumerate(settings.check)
    ]


def _evaluate(assertion: Assertion, loads: Sequence[Point], alpha: float) -> CheckResult:
    if not assertion.is_of_bench:
        raise ConfigError(
            f"check {assertion.name!r} ({assertion.kind}) is about a sweep, and this group was benched",
            where="check",
            do="Of a bench there are max_latency, min_rate, max_failures and max_drop.",
        )
    points = _chosen(assertion, loads)
    kinds: dict[str, Callable[[Assertion, Point, float, float], Judgement]] = {
        "max_latency": _latency,
        "min_rate": _rate,
        "max_failures": _failures,
    }
    judge = kinds[assertion.kind]
    any_is_enough = assertion.kind == "min_rate"
    if any_is_enough:
        judgements = [judge(assertion, point, alpha / len(points), alpha) for point in points]
    else:
        judgements = [judge(assertion, point, alpha, alpha / len(points)) for point in points]
    verdicts = [verdict for verdict, _ in judgements]
    decisive, other = (MET, MISSED) if any_is_enough else (MISSED, MET)
    if decisive in verdicts:
        shown, verdict = [j for j in judgements if j[0] == decisive], decisive
    elif OPEN in verdicts:
        shown, verdict = [j for j in judgements if j[0] == OPEN], OPEN
    else:
        shown, verdict = judgements, other
    parts = [text for _, text in shown]
    proof = f"{100 * (1 - alpha / 2):g}% sure" + (f" for all {len(points)} loads together" if len(points) > 1 else "")
    finding = f"{'; '.join(parts)} ({proof})"
    return CheckResult(assertion.name, assertion.kind, verdict != MISSED, finding, is_open=verdict == OPEN)


def _chosen(assertion: Assertion, loads: Sequence[Point]) -> list[Point]:
    points = [
        point
        for point in loads
        if assertion.load in (None, "all", point.load) and assertion.level in (None, "all", point.level)
    ]
    if not points:
        raise ConfigError(
            f"check {assertion.name!r} is about a load that was not benched",
            where="check",
            do=f"Benched: {', '.join(map(name_of, loads))}.",
        )
    return points


def _latency(assertion: Assertion, point: Point, keeps: float, misses: float) -> Judgement:
    """`keeps`, `misses`: two-sided levels of either proof."""
    assert assertion.value_ms is not None
    name, results = f"{assertion.metric}_{assertion.stat}", point.results
    finding = finding_of(f"{name}_ms", assertion.value_ms, results, keeps)
    where = name_of(point)
    if finding_of(f"{name}_ms", assertion.value_ms, results, misses).verdict == MISSED:
        error_s = point.client_error_s(f"{name}_s") if f"{name}_s" in point.figures else 0.0
        error_ms = 0.0 if math.isnan(error_s) else 1000 * error_s
        if finding_of(f"{name}_ms", assertion.value_ms + error_ms, results, misses).verdict != MISSED:
            return OPEN, f"{where}: cannot tell, this client may have made it so (±{ms(error_s)} ms)"
        return MISSED, f"{where}: {objective(finding)}"
    if finding.verdict == MET:
        return _unless_short(point, MET, f"{where}: {objective(finding)}")
    if finding.verdict == MISSED:  # at the level of one load, not of several
        return OPEN, f"{where}: cannot tell, {ms(finding.value_s)} ms seen is missed for one load alone"
    text = objective(finding)
    if finding.n and finding.n_needed is None and not finding.n_unknown and assertion.stat != "mean":
        allowed = 1 - int(str(assertion.stat)[1:]) / 100
        if needs := requests_to_tell(allowed, finding.n_beyond / finding.n, misses):
            text = f"{text[:-1]}, about {needs:,} requests would tell)"
    return OPEN, f"{where}: {text}"


def _rate(assertion: Assertion, point: Point, keeps: float, misses: float) -> Judgement:
    """Goodput is the rate of requests by the share of them that is good; either bound has half of the error."""
    value, what = assertion.value or 0.0, str(assertion.what)
    name = "output_tokens_per_s" if what == "output_tokens" else "requests_per_s"
    unit = {"requests": "requests/s", "output_tokens": "output tokens/s", "goodput": "good requests/s"}[what]
    figure, rate, where = point.figures[name], rate_of(name, point.results), name_of(point)
    if figure.reason is not None:
        needs = f"; about {figure.n_needed:,} requests would tell" if figure.n_needed else ""
        return OPEN, f"{where}: cannot tell {unit} ({figure.reason}{needs})"
    seen, low, high = rate.value, rate.bound(keeps / 2), rate.bound(1 - misses / 2)
    if what == "goodput":
        if not point.results[0].stage.slo:
            raise ConfigError(
                f"check {assertion.name!r}: no request is good without objectives", where="check", do="Give bench.slo."
            )
        n_good, n = sum(result.n_good for result in point.results), point.n_answered
        least, most = (clopper_pearson(n_good, n, level / 2)[side] for side, level in enumerate((keeps, misses)))
        seen, low, high = (
            seen * n_good / n if n else 0.0,
            rate.bound(keeps / 4) * least,
            rate.bound(1 - misses / 4) * most,
        )
    text = f"{where}: {plain(seen)} {unit} [{plain(low)}, {plain(high)}], asked {value:g}"
    if low >= value:
        return _unless_short(point, MET, text)
    if high < value:
        if point.client.sent_share is not None:
            return (
                OPEN,
                f"{where}: cannot tell, only {point.client.sent_share:.1%} of the planned rate was sent; {text}",
            )
        return MISSED, text
    return OPEN, f"{text}: cannot tell{_requests_would(point, value, (low, seen, high))}"


def _requests_would(point: Point, value: float, bounds: tuple[float, float, float]) -> str:
    """', about 900 requests would': on the scale of logarithms an interval narrows with the root of the requests."""
    low, seen, high = bounds
    if not (low > 0 and seen != value and math.isfinite(high)):
        return ""
    reach = math.log(high / seen) if seen < value else math.log(seen / low)
    n = point.n_started * (reach / math.log(seen / value)) ** 2
    return f", about {math.ceil(n):,} requests would" if point.n_started < n < MOST_REQUESTS else ""


def _failures(assertion: Assertion, point: Point, keeps: float, misses: float) -> Judgement:
    """With value 0 the question is about the requests that were sent: no sample proves that none will ever fail."""
    value, failed, n, where = assertion.value or 0.0, point.n_failed, point.n_started, name_of(point)
    text = f"{where}: {failed:,} of {n:,} requests failed, allowed {share(value)}"
    if binomial_sf(failed - 1, n, value) <= misses / 2 if value else failed:
        return MISSED, text
    if binomial_cdf(failed, n, value) <= keeps / 2 if value else not failed:
        return _unless_short(point, MET, text)
    needs = requests_to_tell(value, failed / n if n else 0.0, keeps) if value else None
    return OPEN, f"{text}: cannot tell" + (f", about {needs:,} requests would" if needs else "")


def _unless_short(point: Point, verdict: str, text: str) -> Judgement:
    """What is kept by a part of the load is not yet kept by the load."""
    if point.partial:
        return OPEN, f"{text}: cannot tell, PARTIAL: requests are still to be sent"
    if point.loop == "open" and point.client.sent_share is not None:
        return OPEN, f"{text}: cannot tell, only {point.client.sent_share:.1%} of the planned rate was sent"
    return verdict, text
