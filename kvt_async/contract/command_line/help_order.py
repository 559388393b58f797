"""Help in the order of work, and a hint where a word or an option was meant for somewhere else."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup

_STRAY = re.compile(r"unexpected extra arguments? ?(?:\(s\) )?\(([^\s)]+)")


class Command(TyperCommand):
    """A command that answers a stray word with -c, and an unknown option with the config key of that name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # click's, of which Typer may bring its own: told by what they carry
            option, message = getattr(error, "option_name", None), str(getattr(error, "message", ""))
            key = config_key(option) if option else None
            stray = _STRAY.search(message)
            near = difflib.get_close_matches(option or "", getattr(error, "possibilities", None) or (), cutoff=0.8)
            if key is not None and not near and self._takes(ctx, "--override"):
                error.message = f"No such option: {option}. Did you mean --override {key}=VALUE?"  # type: ignore[attr-defined]
                error.possibilities = None  # type: ignore[attr-defined]
            elif stray and self._takes(ctx, "--config"):
                hint = f"Did you mean -c {stray[1]}?"
                if Path(stray[1]).is_dir() or stray[1].endswith(".sqlite"):
                    hint = "A run's folder can be read, checked and exported; this command needs a config: -c FILE."
                error.message = f"{message}. {hint}"  # type: ignore[attr-defined]
            raise

    def _takes(self, ctx: Any, option: str) -> bool:
        return any(option in parameter.opts for parameter in self.get_params(ctx))


class Sections(TyperGroup):
    """A list of commands under headings, each with its whole first sentence."""

    headings: ClassVar[Mapping[str, Sequence[str]]] = {}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        known = set(self.list_commands(ctx))
        named = {name for names in self.headings.values() for name in names}
        for heading, names in {**self.headings, "Others": sorted(known - named)}.items():
            rows = [
                (name, command.get_short_help_str(limit=200))
                for name in names
                if name in known and (command := self.get_command(ctx, name)) is not None and not command.hidden
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def config_key(option: str) -> str | None:
    """The config key that an unknown option comes closest to: '--budgets' is kv.budgets; None where nothing is near."""
    from kvt_async.contract.settings import Settings

    name = option.lstrip("-").replace("-", "_")
    section = Settings.model_fields.get(name)
    if section is not None and "name" in getattr(section.annotation, "model_fields", {}):
        return f"{name}.name"
    keys = {key.rpartition(".")[2]: key for key in reversed(list(_keys(Settings, ())))}
    close = difflib.get_close_matches(name, list(keys), n=1, cutoff=0.75)
    return keys[close[0]] if close else None


def _keys(model: type[BaseModel], at: tuple[str, ...]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, (*at, name))
        else:
            yield ".".join((*at, name))
