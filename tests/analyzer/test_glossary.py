"""docs/GLOSSARY.md explains every word that kvt prints: the closed vocabularies, the marks in capitals, and the terms
of both reports' definitions.
"""

import ast
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

from analyzer.bench.report import bench_definitions
from analyzer.report import definitions
from kvt_async.contract import vocabulary
from kvt_async.contract.errors import FailureLabel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/GLOSSARY.md").read_text(encoding="utf-8")
ENTRIES = {term.strip() for heads in re.findall(r"^- \*\*(.+?)\*\*:", PAGE, re.MULTILINE) for term in heads.split(",")}
QUOTED = set(re.findall(r"`([^`]+)`", PAGE))

# Capitals that every engineer reads: protocols, formats, units, benchmarks, parts of a variable's name, and what
# stands for something of the user's on a command line.
PLAIN = {
    *("ASCII", "HTML", "HTTP", "JSON", "JSONL", "NULL", "POSIX", "POST", "SIGINT", "SIGTERM", "STRICT", "UUID", "WAL"),
    *("AIME", "BFCL", "DOCTYPE", "GGUF", "MRCR", "SYSTEM"),
    *("AUTH", "CREDENTIAL", "PASSWORD", "SECRET", "TOKEN", "DONE", "ROUGE", "RULER", "YAML"),
    *("CONFIG", "DIR", "FILE", "HOST", "LIMIT", "METRIC", "NAME", "PATH", "PATTERN", "PORT", "TASK", "VALUE", "YOUR"),
}
OTHERS_WORDS = ("kvtext_text.py", "bfcl_functions.py", "gpqa.py", "math_problems.py")  # prompts, as published
MARK = re.compile(r"(?<![\w$.{/<-])(?:[A-Z]{2,}(?:[- ][A-Z]{2,})+|[A-Z]{4,})(?![\w=/-])")


def words(term: str) -> list[str]:
    return [part.strip().removeprefix("and ") for part in term.split(",")]


def printed(package: str) -> Iterator[tuple[Path, str]]:
    """Every text of a package that is no docstring and no SQL: what may come onto a screen. Published prompts and
    generated English have capitals of their own, which are sent and not printed."""
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name in OTHERS_WORDS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        comments = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in comments:
                text = re.sub(r"`[^`]*`", "", node.value)
                sql = re.search(
                    r"\b(SELECT|INSERT|CREATE|FROM|WHERE|JOIN|WHEN|PRAGMA|ORDER|GROUP|BEGIN|BETWEEN|PRIMARY KEY"
                    r"|IS (?:NOT )?NULL)\b",
                    text,
                )
                if not sql and re.search(r"[a-z]{2} |: ", text):
                    yield path, text


@pytest.mark.parametrize(
    "page", [definitions.DEFINITIONS, definitions.SUITE_DEFINITIONS, bench_definitions.DEFINITIONS]
)
def test_every_term_that_a_report_defines_is_on_the_page(page: tuple[tuple[str, str], ...]) -> None:
    entries = {entry.lower() for entry in ENTRIES}
    missing = [word for term, _ in page for word in words(term) if word.lower() not in entries]
    assert not missing, f"{missing}: explain them in docs/GLOSSARY.md"


def test_every_word_of_the_closed_vocabularies_is_on_the_page() -> None:
    kinds: list[type[StrEnum]] = [FailureLabel]
    kinds += [kind for kind in vars(vocabulary).values() if isinstance(kind, type) and issubclass(kind, StrEnum)]
    members = [str(member) for kind in kinds for member in kind]
    assert len(members) > 30
    missing = [word for word in members if word not in QUOTED]
    assert not missing, f"{missing}: explain them in docs/GLOSSARY.md"


@pytest.mark.parametrize("package", ["analyzer", "kvt_async"])
def test_every_mark_in_capitals_is_on_the_page(package: str) -> None:
    marks = {mark: str(path) for path, text in printed(package) for mark in MARK.findall(text)}
    labels = {label.value for label in FailureLabel}
    missing = {mark: where for mark, where in marks.items() if mark not in ENTRIES | PLAIN | labels}
    assert not missing, f"{missing}: explain it in docs/GLOSSARY.md, or add it to PLAIN where every engineer knows it"


def test_the_nouns_of_the_data_model_are_on_the_page() -> None:
    nouns = {
        "level",
        "run",
        "request",
        "attempt",
        "outcome",
        "series",
        "budget",
        "way",
        "bin",
        "margin",
        "probe",
        "stage",
    }
    assert nouns <= ENTRIES
