"""The code of docs/EXTENDING.md: each fenced block names its file behind the language, and tests run it as it is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "EXTENDING.md"
_BLOCK = re.compile(r"^```(\w+) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """(file, text) of every block in a language, in the page's order."""
    return [(name, text) for kind, name, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")) if kind == language]


def write(folder: Path, *names: str) -> None:
    """Write blocks of the page to files of their names."""
    texts = {name: text for kind in ("python", "yaml", "toml") for name, text in blocks(kind)}
    for name in names:
        (folder / name).write_text(texts[name], encoding="utf-8")


def patch(folder: Path) -> None:
    """Make the changes to kvt itself that the page shows, in a copy of it: new modules, and lines in others."""
    for name, text in blocks("python"):
        if "/" in name:
            (folder / name).write_text(text, encoding="utf-8")
    for name, text in blocks("diff"):
        file = folder / name
        lines = text.splitlines()
        before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
        after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
        whole = file.read_text(encoding="utf-8")
        assert whole.count(before) == 1, f"{name} has {whole.count(before)} places like this:\n{before}"
        file.write_text(whole.replace(before, after), encoding="utf-8")
