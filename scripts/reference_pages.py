"""Pages of the website that are made of the program itself: its commands, its config, and what notebooks import."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from typer.main import get_command

import analyzer
from kvt_async import plugins
from kvt_async.cli import app

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 100
LONGEST_SIGNATURE = 90


def command_page() -> str:
    """Every command with its help."""
    parts = ["# Commands\n\nWhat `--help` prints, of every command."]
    for words, command in commands():
        title = " ".join(words)
        parts.append(f"## {title}\n\n```text\n{help_text(command, title)}\n```")
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words that call it, command) of the program and every command in it, groups before theirs."""
    waiting: list[tuple[tuple[str, ...], Any]] = [(("kvt",), get_command(app))]
    while waiting:
        words, command = waiting.pop(0)
        yield words, command
        inner = getattr(command, "commands", {})
        waiting[:0] = [((*words, name), inner[name]) for name in inner if not inner[name].hidden]


def help_text(command: Any, title: str) -> str:
    """What `--help` prints at a fixed width."""
    context = command.make_context(title, [], resilient_parsing=True, terminal_width=COLUMNS, max_content_width=COLUMNS)
    return str(command.get_help(context)).rstrip()


def config_page() -> str:
    """configs/default.yaml, section by section."""
    head, *sections = re.split(r"^(?=\w+:)", (ROOT / "configs/default.yaml").read_text("utf-8"), flags=re.MULTILINE)
    about = " ".join(line.removeprefix("#").strip() for line in head.splitlines() if line.startswith("#"))
    parts = [f"# Config keys\n\n{about}\n\nShipped experiments: [configs](CONFIGS.md)."]
    for section in sections:
        parts.append(f"## {section.partition(':')[0]}\n\n```yaml\n{section.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """The public names of `analyzer` and `kvt_async.plugins`, from their docstrings."""
    parts = [
        "# Python reference\n\nFrom the docstrings. How they are used: [Python API](API.md), [extending](EXTENDING.md)."
    ]
    for module in (analyzer, plugins):
        for name in public_names(module):
            parts.append(described(f"{module.__name__}.{name}", getattr(module, name)))
    return "\n\n".join(parts) + "\n"


def public_names(module: Any) -> list[str]:
    """What a module offers: its `__all__`, else what is defined in it."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def described(title: str, thing: Any) -> str:
    """A heading, the signature, the docstring; of a class also its fields, properties and methods."""
    parts = [f"## {title}"]
    if inspect.isfunction(thing):
        parts.append(f"```python\n{signature(thing)}\n```")
    parts.append(inspect.getdoc(thing) or "")
    if is_dataclass(thing):
        rows = [
            f"| `{field.name}` | `{shown(field.type)}` |" for field in fields(thing) if not field.name.startswith("_")
        ]
        parts.append("\n".join(["| field | type |", "|---|---|", *rows]))
    if inspect.isclass(thing):
        for name, member in vars(thing).items():
            function = member.fget if isinstance(member, property) else member
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            parts.append(f"### {title.rpartition('.')[2]}.{name}\n\n```python\n{signature(function)}\n```")
            parts.append(inspect.getdoc(function) or "")
    return "\n\n".join(part for part in parts if part)


def signature(function: Any) -> str:
    """`def name(...)`, a parameter a line where it is long."""
    try:
        text = f"{function.__name__}{inspect.signature(function)}"
    except ValueError:
        return str(function.__name__)
    text = re.sub(r"\b(?:[a-z_]\w*\.)+([A-Z]\w*)", r"\1", text).replace("'", "")
    if len(text) <= LONGEST_SIGNATURE:
        return text
    return re.sub(r", (?=[*\w]+(?::|=|,|\)))", ",\n    ", text.replace("(", "(\n    ", 1))


def shown(kind: Any) -> str:
    """A field's type without the modules of its names."""
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", name).replace("|", "or")


GENERATED = {
    "docs/COMMANDS.md": command_page,
    "docs/CONFIG_KEYS.md": config_page,
    "docs/PYTHON.md": python_page,
}
