"""Persisted results → report.md and report.html: the same rows give the same bytes, but for one generated-at line."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analyzer.report import cost_tables, provenance, report_tables
from analyzer.report.answers import OTHER_SERIES, story
from analyzer.report.definitions import FAILURES, definitions
from analyzer.report.vega import vega
from analyzer.results import confidence
from analyzer.results.number_format import budget, listed, number, plural
from analyzer.results.results import ALL, Results, read_results, refuse_older
from kvt_async.contract.errors import ContradictedError, MissingPrerequisiteError
from kvt_async.contract.files import write_whole
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.settings import Settings
from kvt_async.contract.visible import visible
from kvt_async.contract.vocabulary import EvidenceStatus, Role

_MARKS = (("<", "&lt;"), ("![", "!\\["), ("](", "]\\("), ("```", "` ` `"))
ANALYZE = "Run `kvt analyze -c CONFIG` first."


@dataclass(frozen=True)
class ReportPaths:
    md: Path
    html: Path


def build_report(
    conn: sqlite3.Connection,
    settings: Settings,
    paths: RunPaths,
    *,
    partial: bool = False,
    now: datetime | None = None,
    facts: Results | None = None,
) -> ReportPaths:
    """Write both reports beside the database, drawing pictures that are missing. `facts`: where they were read already.

    Raises MissingPrerequisiteError when nothing was analysed or the analysis is older than the results (where no report
    stands yet, report.md then says so), ContradictedError when a server applied another budget than asked.
    """
    facts = facts or read_results(conn, settings.experiment.exp_group_id, volumes=True)
    try:
        guard(facts, partial=partial)
    except MissingPrerequisiteError as refusal:
        _say_why_no_verdict(facts, paths, refusal)
        raise
    same_question(facts, settings)
    if settings.analysis.charts:
        _pictures(conn, settings, paths.plots, facts)
    now = now or datetime.now(UTC)
    out = ReportPaths(paths.report_md, paths.report_html)
    md, page, secrets = markdown(facts, settings, now), html(facts, settings, now), known_secrets(settings)
    if secrets.hit(md):  # a database of before may hold what is masked today
        md, page = secrets.text(md), secrets.text(page)
    write_whole(out.md, md)
    write_whole(out.html, page)
    return out


def _say_why_no_verdict(facts: Results, paths: RunPaths, refusal: MissingPrerequisiteError) -> None:
    """A report.md that claims nothing, for whoever looks into the folder of a run that stopped. A report that stands is
    never replaced by it."""
    if paths.report_md.exists() or paths.report_html.exists():
        return
    finished = sum(p.responses + p.failures for p in facts.progress.values())
    counts = (
        f"{finished:,} of {plural(finished + facts.pending, 'request')} have an outcome, {facts.pending:,} are pending."
    )
    page = f"# {prose(facts.group)}\n\n**No verdict yet.** {counts}\n\n{prose(refusal.what)}. {refusal.do}\n"
    with suppress(OSError):  # a folder that can't be written to has the refusal on the screen
        write_whole(paths.report_md, page)


def markdown(facts: Results, settings: Settings, now: datetime) -> str:
    """report.md: pictures are referenced from plots/ beside it."""
    text: str = environment("md").get_template("report.md.jinja").render(_page(facts, settings, now))
    return text


def html(facts: Results, settings: Settings, now: datetime) -> str:
    """report.html: one file that holds its charts, their data and what draws them."""
    page = _page(facts, settings, now) | {"specs": "{}", "script": ""}
    if settings.analysis.charts:
        with ThreadPoolExecutor(1) as beside:  # bundling takes seconds and leaves Python's lock alone
            script = beside.submit(vega)
            page |= {"specs": _specs(facts), "script": script.result()}
    text: str = environment("html").get_template("report.html.jinja").render(page)
    return text


def guard(facts: Results, *, partial: bool) -> None:
    """Refuse what would be wrong or stale."""
    if not facts.stats or (facts.series and not facts.verdicts):
        raise MissingPrerequisiteError(
            "there is nothing to report: the results have not been analysed", where=facts.group, do=ANALYZE
        )
    refuse_older(facts)
    proofs = [(run, facts.evidence.get(run.run_id)) for run in facts.runs]
    bad = [(run, proof) for run, proof in proofs if proof and proof.status == EvidenceStatus.CONTRADICTED]
    if bad:
        raise ContradictedError(
            "the server applied another KV budget than asked, so no report is written",
            where=facts.group,
            details=tuple(
                f"{r.series} {budget(r.kv_budget, r.kv_unit)}: asked {number(e.requested, 3)}, applied "
                f"{number(e.effective_p50, 3)} (median; {e.n_off} of {e.n} responses off)"
                for r, e in bad
            ),
            do="Fix how the budget reaches the server (kv.apply) or how it is read (kv.evidence), then sweep anew.",
        )
    if facts.pending and not partial:
        raise MissingPrerequisiteError(
            f"{facts.pending:,} requests have no outcome yet",
            where=facts.group,
            do="Run `kvt sweep -c CONFIG` to finish them, or pass --partial.",
        )
    if not partial:
        _fresh(facts)


def same_question(facts: Results, settings: Settings) -> None:
    """The margin and alpha of the sentences must be those that the stored verdicts were made with."""
    for name, asked in (("margin", settings.analysis.margin), ("alpha", settings.analysis.alpha)):
        stored = {v.asked[name] for v in facts.verdicts if name in v.asked}
        if stored - {asked}:
            raise MissingPrerequisiteError(
                f"the stored verdicts were made with analysis.{name} {listed([f'{s:g}' for s in sorted(stored)])}, the "
                f"config says {asked:g}",
                where=facts.group,
                do="Run `kvt analyze -c CONFIG` first, or set it back.",
            )


def _fresh(facts: Results) -> None:
    """Every finished request must be in the analysis."""
    for run in facts.runs:
        done = facts.progress[run.run_id]
        counted = sum(s.n for b in facts.bins if (s := facts.stat(run, b.bin_idx)))
        if counted != done.responses + done.failures:
            raise MissingPrerequisiteError(
                f"the analysis is older than the results: {run.series} {budget(run.kv_budget, run.kv_unit)} has "
                f"{done.responses + done.failures:,} outcomes, {counted:,} were analysed",
                where=facts.group,
                do=ANALYZE,
            )


def verdict_lines(
    conn: sqlite3.Connection, settings: Settings, *, width: int = 100, facts: Results | None = None
) -> list[str]:
    """The verdict for a terminal: at most 12 lines of at most `width` columns."""
    import textwrap

    facts = facts or read_results(conn, settings.experiment.exp_group_id)
    told = story(facts, settings)
    paragraphs = [*(alarm.line for alarm in told.alarms), told.headline]
    paragraphs += [line for a in told.answers for line in a.lines if line.startswith(OTHER_SERIES)]
    chosen = ("What does a smaller budget buy?", "Was the budget applied?", "How sure is this?")
    paragraphs += [a.lines[0] for a in told.answers if a.question in chosen]
    paragraphs += told.caveats
    lines = [line for p in paragraphs for line in textwrap.wrap(p, width, subsequent_indent="  ")]
    return lines if len(lines) <= 12 else [*lines[:11], "  … the rest is in the report."]


def _pictures(conn: sqlite3.Connection, settings: Settings, plots: Path, facts: Results) -> None:
    from analyzer.charts.draw import CHARTS, draw_all
    from analyzer.charts.style import FILES

    if any(not (plots / f"{kind.name}{end}").is_file() for kind in CHARTS for end in FILES):
        draw_all(conn, settings, plots, facts)


def _page(facts: Results, settings: Settings, now: datetime) -> dict[str, Any]:
    """Everything the templates print."""
    run = facts.full or (facts.runs[0] if facts.runs else None)
    failed = sum(p.failures for p in facts.progress.values())
    return {
        "generated_at": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "group": facts.group,
        "model": run.model_name if run else "",
        "dataset": ", ".join(f"{d['name']} / {d['task']}" for d in facts.datasets),
        "story": story(facts, settings),
        "charts": _captions(facts) if settings.analysis.charts else [],
        "verdicts": report_tables.verdicts(facts),
        "safe_by_length": report_tables.safe_by_length(facts),
        "levels": report_tables.levels(facts),
        "comparisons": report_tables.comparisons(facts, settings.analysis.alpha),
        "error_budget": report_tables.error_budget(facts),
        "flags": report_tables.flags(facts),
        "pareto": cost_tables.pareto(facts, settings),
        "tokens": cost_tables.tokens(facts),
        "latencies": cost_tables.latencies(facts),
        "volumes": cost_tables.volumes(facts, settings),
        "control": report_tables.control(facts),
        "control_says": confidence.control([d for d in facts.drops if d.repeat_idx and d.bin_idx == ALL]),
        "run_bins": report_tables.run_bins(facts),
        "step_rule": report_tables.step_rule(facts),
        "contract": provenance.contract(facts),
        "sessions": provenance.sessions(facts),
        "servers": provenance.servers(facts),
        "commands": provenance.commands(facts),
        "account": {
            "requests": facts.requests,
            "responses": sum(p.responses for p in facts.progress.values()),
            "failures": failed,
            "pending": facts.pending,
        },
        "definitions": definitions(
            number(settings.analysis.margin),
            confidence.level_text(_level(facts, settings)),
            number(settings.analysis.drop_threshold),
        ),
        "failures": FAILURES,
        "method": _method(next((v.method for v in facts.verdicts), "")),
    }


def _captions(facts: Results) -> list[dict[str, str]]:
    from analyzer.charts.draw import CHARTS
    from analyzer.charts.frames import note

    return [{"name": k.name, "title": k.message(facts), "says": k.says(facts), "note": note(facts)} for k in CHARTS]


def _level(facts: Results, settings: Settings) -> float:
    """One-sided level of the confirmatory verdict."""
    first = next((v for v in facts.verdicts if v.role == Role.CONFIRMATORY), None)
    return confidence.chance(first, settings.analysis.alpha) if first else settings.analysis.alpha / 2


def _method(text: str) -> str:
    """The persisted method, readable where it is JSON."""
    try:
        return ", ".join(f"{k} {v}" for k, v in provenance.flat(json.loads(text)))
    except json.JSONDecodeError:
        return text


def environment(kind: str) -> Any:
    """Jinja2 over analyzer/report/templates; `kind` md or html, which escapes."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analyzer.report", "templates"),
        autoescape=kind == "html",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    environment.filters["code"] = _code
    environment.filters["prose"] = prose
    return environment


def prose(text: str) -> str:
    """A line of Markdown that holds names from outside: no tag, no picture, no link, no line break, no control."""
    for mark, harmless in _MARKS:
        text = text.replace(mark, harmless)
    return " ".join(visible(text).split())


def _cell(text: str) -> str:
    """A Markdown table cell: prose without a pipe."""
    return prose(text).replace("|", "\\|")


def _code(text: str) -> Any:
    """Text with `code` in backticks, as safe HTML."""
    from markupsafe import Markup, escape

    parts = [Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(text.split("`"))]
    return Markup("").join(parts)


def _specs(facts: Results) -> str:
    """Every chart twice, for desktops and phones, as JSON that is safe inside a script element."""
    from analyzer.charts.draw import CHARTS, draw
    from analyzer.charts.frames import chart_data
    from analyzer.charts.style import NARROW, PAGE

    data = chart_data(facts)
    specs = {
        kind.name: {
            name: draw(kind, facts, data, look, title=False) for name, look in (("wide", PAGE), ("narrow", NARROW))
        }
        for kind in CHARTS
    }
    text = json.dumps(specs, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
