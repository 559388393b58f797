"""docs/images/demo.svg: a terminal with `kvt demo` in it. The command is run, and what it prints is drawn.

python scripts/terminal_picture.py [TEXT]     TEXT: a file with what the command printed, in place of running it
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/demo.svg"
COLUMNS = 100
LINKED_FONT = re.compile(r"    @font-face \{.*?\n    \}\n", re.DOTALL)
BOLD = re.compile(
    r"safe on average over lengths|down to \d+% of the cache kept|broken from \d+% down|verified on every level"
)


def main() -> None:
    """Run or read, draw, and write the picture."""
    PICTURE.write_text(
        drawn(Path(sys.argv[1]).read_text("utf-8") if len(sys.argv) > 1 else printed()), encoding="utf-8"
    )


def printed() -> str:
    """What `kvt demo` prints on its standard output, run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "kvt_async", "demo"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def drawn(text: str) -> str:
    """An SVG that loads nothing from anywhere: the font is the reader's own."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), ("kvt demo", "bold")))
    for line in text.rstrip().splitlines():
        shown = Text(line)
        shown.highlight_regex(BOLD, "bold cyan")
        console.print(shown, soft_wrap=True)
    svg = console.export_svg(title="kvt demo: a real model, real eviction", unique_id="kvt-demo")
    return LINKED_FONT.sub("", svg).replace(
        "Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    )


if __name__ == "__main__":
    main()
