"""What the templates print: the first screen under its headings, tables, provenance, definitions. Pure."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from analyzer.report import cost_tables, provenance, report_tables, turn_tables
from analyzer.report.answers import AnswerKey, FirstScreen, first_screen
from analyzer.report.definitions import FAILURES, definitions
from analyzer.results import confidence
from analyzer.results.decode_words import decode_table
from analyzer.results.number_format import loss_size, number
from analyzer.results.outcome_words import call_table, outcome_table, part_table
from analyzer.results.results import ALL, Results
from analyzer.results.series_names import series_name
from analyzer.results.text_table import flat
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import Role

HEADINGS = {
    "What changed with the KV budget?": (AnswerKey.CHANGED,),
    "Which task breaks first?": (AnswerKey.FIRST_TO_BREAK,),
    "How much may a single task lose?": (AnswerKey.WORST_TASK,),
    "Is every task safe?": (AnswerKey.EVERYWHERE,),
    "Which tasks can't tell?": (AnswerKey.UNTOLD,),
    "Where is nothing to lose?": (AnswerKey.NOTHING,),
    "Where does it break?": (AnswerKey.BREAKS, AnswerKey.OTHER_SERIES),
    "Which budget is safe at which length?": (AnswerKey.LENGTHS,),
    "Wrong answers or failures?": (AnswerKey.CAUSES,),
    "Did anything else change?": (AnswerKey.ELSE,),
    "What does a smaller budget buy?": (AnswerKey.BUYS,),
    "Was the budget applied?": (AnswerKey.APPLIED,),
    "How sure is this?": (AnswerKey.CERTAINTY,),
    "What limits it?": (AnswerKey.LIMITS,),
}


def context(results: Results, settings: Settings, now: datetime, charts: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Everything the templates print; `charts`: captions of the charts, none where none are drawn."""
    run = results.full or (results.runs[0] if results.runs else None)
    screen = first_screen(results, settings)
    failed = sum(p.failures for p in results.progress.values())
    return {
        "generated_at": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "group": results.group,
        "model": run.model_name if run else "",
        "dataset": ", ".join(f"{d['name']} / {d['task']}" for d in results.datasets),
        "screen": screen,
        "answers": under_headings(screen),
        "charts": [chart for chart in charts if not chart.get("left_out")],
        "left_out": [chart for chart in charts if chart.get("left_out")],
        "names": [(name, s) for s in results.series if (name := series_name(s)) != s],
        "telling": results.telling,
        "changed": report_tables.changed_answers(results),
        "verdicts": report_tables.verdicts(results),
        "safe_by_length": report_tables.safe_by_length(results),
        "levels": report_tables.levels(results),
        "while_generating": decode_table(results),
        "comparisons": report_tables.comparisons(results, settings.analysis.alpha),
        "outcomes": outcome_table(results, settings.analysis.alpha),
        "calls": call_table(results, settings.analysis.alpha),
        "turns": turn_tables.by_turn(results),
        "parts": part_table(results, settings.analysis.alpha),
        "error_budget": report_tables.error_budget(results),
        "flags": report_tables.flags(results),
        "pareto": cost_tables.pareto(results, settings),
        "tokens": cost_tables.tokens(results),
        "latencies": cost_tables.latencies(results),
        "volumes": cost_tables.volumes(results, settings),
        "control": report_tables.control(results),
        "control_says": confidence.control([d for d in results.drops if d.repeat_idx and d.bin_idx == ALL]),
        "run_bins": report_tables.run_bins(results),
        "step_rule": report_tables.step_rule(results),
        "contract": provenance.contract(results),
        "sessions": provenance.sessions(results),
        "servers": provenance.servers(results),
        "commands": provenance.commands(results),
        "account": {
            "requests": results.requests,
            "responses": sum(p.responses for p in results.progress.values()),
            "failures": failed,
            "pending": results.pending,
        },
        "definitions": definitions(
            loss_size(settings.analysis.margin, settings.analysis.margin_kind),
            confidence.level_text(_level(results, settings)),
            number(settings.analysis.drop_threshold),
        ),
        "failures": FAILURES,
        "method": method_text(next((v.method for v in results.verdicts), "")),
    }


def under_headings(screen: FirstScreen) -> list[dict[str, Any]]:
    """The answers as the page shows them; a heading without an answer is left out."""
    sections = [
        {"heading": heading, "lines": [line for a in screen.answers if a.key in keys for line in a.lines]}
        for heading, keys in HEADINGS.items()
    ]
    return [section for section in sections if section["lines"]]


def _level(results: Results, settings: Settings) -> float:
    """The one-sided level at which the confirmatory verdict is tested."""
    first = next((v for v in results.verdicts if v.role == Role.CONFIRMATORY), None)
    return confidence.chance(first, settings.analysis.alpha) if first else settings.analysis.alpha / 2


def method_text(text: str) -> str:
    """The persisted method, readable where it is JSON."""
    try:
        return ", ".join(f"{k} {v}" for k, v in flat(json.loads(text)))
    except json.JSONDecodeError:
        return text
