"""What `kvt verify` says of a database, of each generation in it and of the report beside it; and the exit code."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analyzer.results.number_format import plural
from analyzer.store import artifacts
from analyzer.verify.differences import Difference, Findings
from analyzer.verify.verification import Checked, verify
from kvt_async.contract.paths import RunPaths

Json = dict[str, Any]

EQUAL, DIFFERENT, UNCHECKED = 0, 1, 3  # exit codes
SHOWN = 12  # differences of one table that are printed; --json has more
VERDICTS = ("verdict", "safe_budget", "collapse_budget", "collapse_margin_budget")


def verified(db: Path, data_dir: Path | None = None, progress: Callable[[str], None] = lambda _: None) -> Json:
    """Check a database, its manifests where `data_dir` has them, and the report files in its folder: everything for
    --json, `lines` for people, `exit_code`."""
    of_facts, generations = verify(db, data_dir, progress)
    of_files = Findings()
    _files(RunPaths(db.parent, db), generations, of_files)
    total = Findings()
    for findings in (of_facts, *(one.findings for one in generations), of_files):
        total.merge(findings)
    code = DIFFERENT if total.n_differences else UNCHECKED if total.not_checkable else EQUAL
    return {
        "database": str(db),
        "exit_code": code,
        "n_differences": total.n_differences,
        "facts": _json(of_facts),
        "groups": [
            {"exp_group_id": one.exp_group_id, "generation": one.generation, **_json(one.findings)}
            for one in generations
        ],
        "files": _json(of_files),
        "lines": [
            str(db),
            *_lines("facts", of_facts),
            *(line for one in generations for line in _of_group(one)),
            *_lines("report files", of_files),
            *_named(total),
            _verdict(total, of_facts),
        ],
    }


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
    contents = [one.content for one in generations if one.content is not None]
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


def _of_group(one: Checked) -> list[str]:
    if not (one.findings.checked or one.findings.not_checkable or one.findings.notes):
        return [f"  group {one.exp_group_id}, generation {one.generation}: nothing is derived yet"]
    return _lines(f"group {one.exp_group_id}, generation {one.generation}", one.findings)


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
    order = sorted(total.differences, key=lambda one: (not _is_verdict(one), one.table == "scores"))
    shown: list[Difference] = []
    for one in order:
        if sum(other.table == one.table for other in shown) < SHOWN:
            shown.append(one)
    lines = [f"  {'VERDICT CHANGES ' if _is_verdict(one) else ''}{one}" for one in shown]
    left = total.n_differences - len(lines)
    return [*lines, f"  and {left:,} more (--json names {len(total.differences):,} of them)"] if left > 0 else lines


def _is_verdict(one: Difference) -> bool:
    return one.table == "transition_summary" and one.column in VERDICTS


def _verdict(total: Findings, of_facts: Findings) -> str:
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
    return "verified: every derived number follows from the stored facts"
