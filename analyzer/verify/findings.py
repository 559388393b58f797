"""What `kvt verify` says of a database, of each generation in it and of the report beside it; and the exit code."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from analyzer.results.number_format import plural
from analyzer.stage_answers import Json, StageAnswer
from analyzer.store import artifacts
from analyzer.store.tables import Verdict
from analyzer.verify.differences import Difference, Findings
from analyzer.verify.group_parts import verify_group
from analyzer.verify.verification import Checked
from kvt_async.contract.paths import RunPaths

EQUAL, DIFFERENT, UNCHECKED = 0, 1, 3  # exit codes
SHOWN = 12  # differences of one table that are printed; --json has more
VERDICTS = ("verdict", "safe_budget", "collapse_budget", "collapse_margin_budget")


@dataclass(frozen=True)
class VerifyAnswer(StageAnswer):
    """What a check of a database found: in its facts, in each generation of each group, and in the report's files."""

    database: Path
    facts: Findings
    generations: list[Checked]
    files: Findings

    @cached_property
    def total(self) -> Findings:
        """Everything together."""
        total = Findings()
        for findings in (self.facts, *(checked.findings for checked in self.generations), self.files):
            total.merge(findings)
        return total

    @property
    def exit_code(self) -> int:
        total = self.total
        return DIFFERENT if total.n_differences else UNCHECKED if total.not_checkable else EQUAL

    @property
    def lines(self) -> list[str]:
        total = self.total
        return [
            str(self.database),
            *_lines("facts", self.facts),
            *(line for checked in self.generations for line in _of_group(checked)),
            *_lines("report files", self.files),
            *_named(total),
            _verdict(total, self.facts, any(any(of.findings.checked.values()) for of in self.generations)),
        ]

    def json(self) -> Json:
        return {
            "database": str(self.database),
            "exit_code": self.exit_code,
            "n_differences": self.total.n_differences,
            "facts": _json(self.facts),
            "groups": [
                {"exp_group_id": of.exp_group_id, "generation": of.generation, "part": of.part or None}
                | _json(of.findings)
                for of in self.generations
            ],
            "files": _json(self.files),
        }


def verified(db: Path, data_dir: Path | None = None, progress: Callable[[str], None] = lambda _: None) -> VerifyAnswer:
    """Check a database, its manifests where `data_dir` has them, and the report files in its folder."""
    of_facts, generations = verify_group(db, data_dir, progress)
    of_files = Findings()
    _files(RunPaths(db.parent, db), generations, of_files)
    return VerifyAnswer(db, of_facts, generations, of_files)


def _files(paths: RunPaths, generations: list[Checked], findings: Findings) -> None:
    """report.md, report.html and charts: as kvt wrote them, and made from the rows that are stored now."""
    record = artifacts.recorded(paths.run_dir)
    for what, files in record.items():
        for name, sha256 in files.contents.items():
            findings.count(what, 1)
            file = paths.run_dir / name
            if not file.is_file():
                findings.notes.append(f"{name} was removed since")
            elif artifacts.sha256(file) != sha256:
                findings.add(Difference("files", {"file": name}, "sha256", artifacts.sha256(file), sha256))
    for file in (paths.report_md, paths.report_html):
        if file.is_file() and not any(file.name in files.contents for files in record.values()):
            findings.cannot_check(f"no record says what {file.name} was made from", 1)
    contents = [checked.content for checked in generations if checked.content is not None]
    for what in (name for name in ("report", "bench_report") if name in record):
        rows = record[what].rows
        if rows is None:
            findings.cannot_check(f"an older kvt made the {what} and recorded no rows", 1)
        elif contents and rows not in contents:
            stored = "other rows than are stored now"
            findings.add(Difference("files", {"file": what}, "made from", stored, "the stored rows"))


def _json(findings: Findings) -> Json:
    return {
        "checked": findings.checked,
        "n_differences": findings.n_differences,
        "differences": [asdict(difference) for difference in findings.differences],
        "not_checkable": [{"why": why, "rows": rows} for why, rows in findings.not_checkable.items()],
        "notes": findings.notes,
    }


def _of_group(checked: Checked) -> list[str]:
    part = f", {checked.part}" if checked.part else ""
    name, findings = f"group {checked.exp_group_id}{part}, generation {checked.generation}", checked.findings
    if not (findings.checked or findings.not_checkable or findings.notes):
        return [f"  {name}: nothing is derived yet"]
    return _lines(name, findings)


def _lines(name: str, findings: Findings) -> list[str]:
    checked = ", ".join(f"{table} {rows:,}" for table, rows in findings.checked.items() if rows)
    if not checked and not findings.not_checkable and not findings.notes:
        return []
    different = f"{findings.n_differences:,} DIFFER" if findings.n_differences else "all equal"
    return [
        f"  {name}: {f'rows checked: {checked}; {different}' if checked else 'nothing could be checked'}",
        *(f"    {plural(rows, 'row')}: {why}" for why, rows in findings.not_checkable.items()),
        *(f"    {note}" for note in findings.notes),
    ]


def _named(total: Findings) -> list[str]:
    """Differences one by one, verdicts first and scores last: what a reader took from the report matters most."""
    order = sorted(total.differences, key=lambda found: (not _is_verdict(found), found.table == "scores"))
    shown: list[Difference] = []
    for difference in order:
        if sum(other.table == difference.table for other in shown) < SHOWN:
            shown.append(difference)
    lines = [f"  {'VERDICT CHANGES ' if _is_verdict(difference) else ''}{difference}" for difference in shown]
    left = total.n_differences - len(lines)
    return [*lines, f"  and {left:,} more (--json names {len(total.differences):,} of them)"] if left > 0 else lines


def _is_verdict(difference: Difference) -> bool:
    return difference.table == Verdict.TABLE and difference.column in VERDICTS


def _verdict(total: Findings, of_facts: Findings, has_derived: bool) -> str:
    if of_facts.n_differences:
        return (
            f"NOT VERIFIED: of what is stored, {plural(total.n_differences, 'value')} can't be right, "
            f"{of_facts.n_differences:,} of them in the facts, which nothing can make again: go back to a copy of the "
            "database that is whole."
        )
    if total.n_differences:
        return (
            f"NOT VERIFIED: the facts don't give {plural(total.n_differences, 'stored value')}. "
            "`kvt all --recompute` makes derived rows and report again."
        )
    if total.not_checkable:
        rows = sum(total.not_checkable.values())
        return f"not all of it can be checked: {plural(rows, 'row')}, see above; everything else is equal"
    if not has_derived:
        return "the facts are whole; no derived number was checked (`kvt all` makes them)"
    return "verified: every derived number follows from the stored facts"
