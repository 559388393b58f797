"""What of the documentation follows from the tree: the rooms of docs/ARCHITECTURE.md, and docs/MODULES.md.

    python scripts/architecture.py [--check]

`--check` writes nothing and exits with 1 where a page is not true. In ARCHITECTURE what stands outside of the two marks
is kept.
"""

import ast
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE, MODULES = ROOT / "docs/ARCHITECTURE.md", ROOT / "docs/MODULES.md"
TOPS = ("kvt_async", "analyzer", "viewer")
BEGIN, END = "<!-- rooms: scripts/architecture.py writes what follows -->\n", "<!-- rooms end -->\n"
HEAD = """# Modules

Every module with its first sentence. The rooms, and what they may import: [ARCHITECTURE.md](ARCHITECTURE.md).
"""
WIDTH, INDENT = 118, 34


def pages() -> dict[Path, str]:
    """Both pages as they should be. ValueError: ARCHITECTURE has lost its marks."""
    before, begin, rest = ARCHITECTURE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{ARCHITECTURE} has lost its marks")
    rooms = [line for init in packages() for line in entry(f"{name_of(init)}/", init)]
    text = "\n".join(["```text", *rooms, "```"])
    return {
        ARCHITECTURE: f"{before}{BEGIN}\n{text}\n\n{END}{after}",
        MODULES: "\n".join([HEAD, *map(section, packages())]),
    }


def packages() -> list[Path]:
    """The `__init__` of every package, outer ones first."""
    inits = [init for top in TOPS for init in (ROOT / top).rglob("__init__.py")]
    return sorted(inits, key=lambda init: (TOPS.index(init.relative_to(ROOT).parts[0]), init.parent.parts))


def section(init: Path) -> str:
    """A package and its modules, as Markdown."""
    modules = sorted(file for file in init.parent.glob("*.py") if not file.stem.startswith("__"))
    lines = [f"## {name_of(init)}", "", sentence(init), ""]
    if modules:
        lines += ["```text", *(line for module in modules for line in entry(module.stem, module)), "```", ""]
    return "\n".join(lines)


def name_of(init: Path) -> str:
    return init.parent.relative_to(ROOT).as_posix()


def sentence(file: Path) -> str:
    """The first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.?!])\s", text, maxsplit=1)[0]


def entry(name: str, file: Path) -> list[str]:
    """A name and the file's first sentence, in lines of at most WIDTH characters."""
    indent = max(INDENT, len(name) + 1)
    lines = textwrap.wrap(sentence(file), WIDTH - indent) or [""]
    return [f"{name:<{indent}}{lines[0]}".rstrip(), *(f"{'':<{indent}}{line}" for line in lines[1:])]


def main() -> int:
    wrong = {page: text for page, text in pages().items() if not page.is_file() or page.read_text("utf-8") != text}
    if "--check" in sys.argv[1:]:
        for page in wrong:
            print(f"{page.relative_to(ROOT)} shows another tree than there is. Run: python scripts/architecture.py")
        return 1 if wrong else 0
    for page, text in wrong.items():
        page.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
