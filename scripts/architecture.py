"""The rooms of docs/ARCHITECTURE.md from the code: every package and module with its first sentence.

    python scripts/architecture.py [--check]

`--check` writes nothing and exits with 1 where the page is not true. What stands outside of the two marks is kept.
"""

import ast
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/ARCHITECTURE.md"
BEGIN, END = "<!-- rooms: scripts/architecture.py writes what follows -->\n", "<!-- rooms end -->\n"
WIDTH, INDENT = 118, 26


def rooms() -> str:
    """Every package with its sentence, and its modules with theirs, as Markdown."""
    lines: list[str] = []
    for package in ("kvt_async", "analyzer"):
        for init in sorted((ROOT / package).rglob("__init__.py"), key=lambda file: file.parent.parts):
            folder = init.parent
            modules = sorted(file for file in folder.glob("*.py") if not file.stem.startswith("__"))
            lines += [f"**{folder.relative_to(ROOT).as_posix()}/** {sentence(init)}", ""]
            lines += ["```text", *(line for module in modules for line in entry(module)), "```", ""] if modules else []
    return "\n".join(lines)


def sentence(file: Path) -> str:
    """The first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.?!])\s", text, maxsplit=1)[0]


def entry(module: Path) -> list[str]:
    """A module's name and sentence, in lines of at most WIDTH characters."""
    lines = textwrap.wrap(sentence(module), WIDTH - INDENT) or [""]
    return [f"{module.stem:<{INDENT}}{lines[0]}".rstrip(), *(f"{'':<{INDENT}}{line}" for line in lines[1:])]


def page(text: str) -> str:
    """The page with its rooms as they are now. ValueError: it lacks the marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has lost its marks")
    return f"{head}{BEGIN}\n{rooms()}\n{END}{tail}"


def main() -> int:
    before = PAGE.read_text("utf-8")
    after = page(before)
    if "--check" in sys.argv[1:]:
        if before != after:
            print("docs/ARCHITECTURE.md shows other rooms than the code has. Run: python scripts/architecture.py")
            return 1
        return 0
    PAGE.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
