"""What a stage answers: a frozen class each, with `lines` for people and `json()` for programs.

Here are the answers of the stages with files; those of the other verbs stand beside what gives them.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from kvt_async.contract.bench_output import stamped
from kvt_async.contract.errors import FailuresStandError
from kvt_async.contract.visible import visible

Json = dict[str, Any]


class StageAnswer(ABC):
    """What a stage did or found."""

    @property
    @abstractmethod
    def lines(self) -> list[str]:
        """What a person reads, line by line."""

    @abstractmethod
    def json(self) -> Json:
        """What --json prints."""

    @property
    def exit_code(self) -> int:
        """Of the command that ran the stage."""
        return 0


def print_answer(answer: StageAnswer, quiet: bool, as_json: bool, *, lines: list[str] | None = None) -> None:
    """The answer as JSON, or its lines (or those given) for people; its exit code, where it isn't 0, ends kvt."""
    if as_json:
        typer.echo(json.dumps(answer.json(), indent=2, default=str))
    elif not quiet:
        for line in answer.lines if lines is None else lines:
            typer.echo(visible(line))
    if answer.exit_code:
        raise typer.Exit(answer.exit_code)


@dataclass(frozen=True)
class Standing:
    """What speaks against the results: (name, sentence) of each alarm, and whether prompts were read short."""

    alarms: tuple[tuple[str, str], ...]
    are_short: bool

    @property
    def exit_code(self) -> int:
        return FailuresStandError.exit_code if self.are_short else 0

    @property
    def named(self) -> list[Json]:
        return [{"name": name, "says": says} for name, says in self.alarms]

    def json(self) -> Json:
        return {"alarms": self.named, "exit_code": self.exit_code}


@dataclass(frozen=True)
class ScoreAnswer(StageAnswer):
    """How many requests were scored now, and how many stood already; `rescored` says by which other metric."""

    scored: int
    skipped: int
    rescored: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        return [f"scored {self.scored}, {self.skipped} were scored already", *dict.fromkeys(self.rescored)]

    def json(self) -> Json:
        return {"scored": self.scored, "skipped": self.skipped, "rescored": list(self.rescored)}


@dataclass(frozen=True)
class AnalyzeAnswer(StageAnswer):
    """The analysis that stands now, and its charts in `plots`; none where the config wants none."""

    recomputed: bool
    runs: int
    partial: bool
    charts: list[Path]
    plots: Path
    standing: Standing

    @property
    def lines(self) -> list[str]:
        state = "recomputed" if self.recomputed else "nothing had changed"
        kinds = sorted({chart.name.partition(".")[2] for chart in self.charts})
        n = len({(chart.parent, chart.name.partition(".")[0]) for chart in self.charts})
        drawings = f"{n} charts ({', '.join(kinds)}) in {self.plots}" if self.charts else "no charts"
        return [f"analyzed {self.runs} runs ({state}); {drawings}"]

    @property
    def exit_code(self) -> int:
        return self.standing.exit_code

    @property
    def own_json(self) -> Json:
        """Without what speaks against the results."""
        charts = [str(chart) for chart in self.charts]
        return {"recomputed": self.recomputed, "runs": self.runs, "partial": self.partial, "charts": charts}

    def json(self) -> Json:
        return self.own_json | self.standing.json()


@dataclass(frozen=True)
class ReportAnswer(StageAnswer):
    """The report's two files."""

    md: Path
    html: Path
    standing: Standing

    @property
    def lines(self) -> list[str]:
        return [f"report: {self.html}", f"        {self.md}"]

    @property
    def exit_code(self) -> int:
        return self.standing.exit_code

    @property
    def own_json(self) -> Json:
        """Without what speaks against the results."""
        return {"report_md": str(self.md), "report_html": str(self.html)}

    def json(self) -> Json:
        return self.own_json | self.standing.json()


@dataclass(frozen=True)
class VerdictAnswer(StageAnswer):
    """Score, analyze and report, and then the verdict: its lines, and the figures behind it."""

    score: ScoreAnswer
    analyze: AnalyzeAnswer
    report: ReportAnswer
    verdict: list[str]
    figures: Json

    @property
    def lines(self) -> list[str]:
        return [*self.score.lines, *self.analyze.lines, "", *self.verdict, "", *self.report.lines]

    @property
    def exit_code(self) -> int:
        return self.report.exit_code

    def json(self) -> Json:
        return {
            "score": self.score.json(),
            "analyze": self.analyze.own_json,
            "report": self.report.own_json,
            "verdict": self.verdict,
            "results": self.figures,
            **self.report.standing.json(),
        }


@dataclass(frozen=True)
class BenchAnswer(StageAnswer):
    """What `kvt bench report` says of a group that was benched."""

    facts: Json  # of bench_stages

    @property
    def lines(self) -> list[str]:
        return list(self.facts["lines"])

    @property
    def verdict(self) -> list[str]:
        return list(self.facts["verdict"])

    def json(self) -> Json:
        return stamped({name: value for name, value in self.facts.items() if name != "lines"})


@dataclass(frozen=True)
class CheckResult:
    """One assertion: its name, whether it holds, and what was found, in a sentence. `is_open`: neither is proven, and
    it passes unless the check is strict."""

    name: str
    kind: str
    passed: bool
    finding: str
    is_open: bool = False


@dataclass(frozen=True)
class CheckAnswer(StageAnswer):
    """Every assertion with its finding, and what speaks against the results that they look at. `strict`: what cannot be
    told does not pass."""

    results: list[CheckResult]
    standing: Standing
    rescored: str = ""  # says that another metric than the tasks' own made the scores
    strict: bool = False

    @property
    def passed(self) -> bool:
        return all(map(self._passes, self.results)) and not self.standing.exit_code

    @property
    def exit_code(self) -> int:
        return 0 if self.passed else 1

    @property
    def lines(self) -> list[str]:
        lines = [f"ALARM {name}: {says}" for name, says in self.standing.alarms]
        lines += [self.rescored] if self.rescored else []
        lines += [f"{self._mark(result)} {result.name}: {result.finding}" for result in self.results]
        n_open = sum(result.is_open for result in self.results)
        if n_open and not self.strict:
            lines.append(f"({n_open} cannot be told, which passes; with --strict it fails)")
        return lines

    def json(self) -> Json:
        results = [
            {
                "name": result.name,
                "kind": result.kind,
                "passed": self._passes(result),
                "cannot_tell": result.is_open,
                "finding": result.finding,
            }
            for result in self.results
        ]
        return {
            "passed": self.passed,
            "strict": self.strict,
            "alarms": self.standing.named,
            "rescored": self.rescored,
            "results": results,
        }

    def junit(self) -> str:
        """The same as JUnit XML, which build servers show: what cannot be told is skipped, in a strict check failed. An
        alarm is a case of its own, that failed."""
        from xml.etree import ElementTree

        cases = [(r.name, r.kind, r.finding, self._passes(r), r.is_open) for r in self.results]
        cases += [(name, "alarm", says, not self.standing.exit_code, False) for name, says in self.standing.alarms]
        failures = sum(not passes for *_, passes, _ in cases)
        skipped = sum(passes and is_open for *_, passes, is_open in cases)
        counts = {"tests": str(len(cases)), "failures": str(failures), "skipped": str(skipped)}
        suite = ElementTree.Element("testsuite", {"name": "kvt check", **counts})
        for name, kind, finding, passes, is_open in cases:
            case = ElementTree.SubElement(suite, "testcase", name=name, classname=f"kvt.check.{kind}")
            if not passes:
                ElementTree.SubElement(case, "failure", message=finding)
            elif is_open:
                ElementTree.SubElement(case, "skipped", message=finding)
            else:
                ElementTree.SubElement(case, "system-out").text = finding
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"

    def _passes(self, result: CheckResult) -> bool:
        return result.passed and not (self.strict and result.is_open)

    def _mark(self, result: CheckResult) -> str:
        return "FAIL" if not self._passes(result) else "open" if result.is_open else "ok  "
