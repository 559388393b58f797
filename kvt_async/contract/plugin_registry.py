"""Metrics, data sources and eviction policies of the user's own, by kind and name.

They come from files that a config names (plugin_files.py) or from installed packages, through their entry points in the
groups kvt.metrics, kvt.sources and kvt.policies. A package's code is loaded when a name is asked for that nobody else
gives. Nothing here knows what uses a plugin, so runner, server and analyzer share one list.
"""

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError, KvtError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # a source's is part of a folder's name


class Kind(StrEnum):
    """What a plugin gives; the value is a word for messages."""

    METRIC = "metric"
    SOURCE = "source"
    POLICY = "policy"

    @property
    def entry_group(self) -> str:
        """The group of entry points that name plugins of this kind."""
        return {"metric": "kvt.metrics", "source": "kvt.sources", "policy": "kvt.policies"}[self.value]


@dataclass(frozen=True, slots=True)
class Origin:
    """The file that defines a plugin and its SHA-256; `package`: name and version of what installed it, else empty."""

    path: str
    sha256: str
    package: str = ""

    @classmethod
    def of(cls, path: Path, package: str = "") -> "Origin":
        """Of a file that can be read."""
        return cls(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), package)

    @property
    def says(self) -> str:
        """Which file it is, for messages."""
        of = f" of {self.package}" if self.package else ""
        return f"{self.path}{of} (SHA-256 {self.sha256})"

    @property
    def as_json(self) -> dict[str, str]:
        return {"path": self.path, "sha256": self.sha256} | ({"package": self.package} if self.package else {})


@dataclass(frozen=True, slots=True)
class SourceTask:
    """One task of a data source: its metric, and the published prompt and answer length where it has them."""

    about: str
    metric: str = "f1"
    template: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Plugin:
    """`function`: what the user wrote. `options`: what the decorator was given, by name."""

    kind: Kind
    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]
    origin: Origin

    @property
    def says(self) -> str:
        """What and whose it is, for messages."""
        return f"the {self.kind} {self.name} of {self.origin.path}"

    def failed(self, error: Exception, *, about: tuple[str, ...] = ()) -> KvtError:
        """The error of a function that raised `error`, naming the line; an error of kvt's own stays as it is."""
        if isinstance(error, KvtError):
            return error
        return ConfigError(
            f"{self.says} failed: {type(error).__name__}: {error}",
            where=place_of(error, self.origin.path),
            details=about,
            do="Correct the plugin, then run the same command again.",
        )


_plugins: dict[tuple[Kind, str], Plugin] = {}
_loading: list[Origin] = []


@contextmanager
def loading(origin: Origin) -> Iterator[None]:
    """Plugins that are added while the block runs come from there. What is printed meanwhile goes to stderr: stdout is
    for a command's answer."""
    _loading.append(origin)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _loading.pop()


def add(
    kind: Kind,
    name: str,
    function: Callable[..., Any],
    *,
    like: tuple[Any, ...],
    options: dict[str, Any],
    ours: Container[str] = (),
) -> None:
    """Add a plugin; `like` are arguments that its function must take, `ours` names that kvt has itself.

    Raises ConfigError for a name that is taken or can't be one, and for a function that takes other arguments.
    """
    origin = _loading[-1] if _loading else _origin_of(function)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a {kind}",
            where=origin.path,
            do="Use letters, digits, dot, dash and underscore, at most 64.",
        )
    if name in ours:
        raise taken(kind, name, "one of kvt's own", origin)
    other = _plugins.get((kind, name))
    if other is not None and (_loading or other.origin.path != origin.path):  # a notebook's cell may run again
        raise taken(kind, name, other.origin.says, origin)
    if other is None and not origin.package and (installed := _entry_points(kind, name)):
        raise taken(kind, name, f"the package {_package(installed[0])}", origin)
    _check_signature(kind, name, function, like, origin)
    _plugins[kind, name] = Plugin(kind, name, function, options, origin)


def taken(kind: Kind, name: str, by: str, origin: Origin) -> ConfigError:
    """The error of a name that somebody else has."""
    return ConfigError(
        f"there is another {kind} called {name}: {by}", where=origin.path, do="Give one of them another name."
    )


def remove(path: str) -> None:
    """Forget what a file gave."""
    for key in [key for key, plugin in _plugins.items() if plugin.origin.path == path and not plugin.origin.package]:
        del _plugins[key]


def find(kind: Kind, name: str) -> Plugin | None:
    """The plugin of that name; None: there is none. Loads the package that offers it.

    Raises ConfigError where two packages offer it, or one that does so can't be loaded or doesn't give it.
    """
    if (kind, name) not in _plugins and (offers := _entry_points(kind, name)):
        if len(offers) > 1:
            raise ConfigError(
                f"{len(offers)} packages give a {kind} called {name}: {', '.join(map(_package, offers))}",
                do="Uninstall all but one of them.",
            )
        _load(kind, offers[0])
    return _plugins.get((kind, name))


def names(kind: Kind) -> list[str]:
    """Every name that `find` finds; loads nothing."""
    return sorted({name for of, name in _plugins if of == kind} | {point.name for point in _entry_points(kind)})


def added(kind: Kind) -> list[Plugin]:
    """The plugins that are loaded."""
    return [plugin for (of, _), plugin in sorted(_plugins.items()) if of == kind]


def place_of(error: Exception, path: str) -> str:
    """file:line where an error arose, the deepest in `path`; the file alone where it isn't in the traceback."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{path}:{line}" if line else path


def _check_signature(
    kind: Kind, name: str, function: Callable[..., Any], like: tuple[Any, ...], origin: Origin
) -> None:
    wants = {
        Kind.METRIC: "(prediction, golds, meta), or (prediction, gold, meta) with each_gold",
        Kind.SOURCE: "(task, path, params)",
        Kind.POLICY: "(view, params)",
    }[kind]
    try:
        if not callable(function):
            raise TypeError(f"{type(function).__name__} is no function")
        inspect.signature(function).bind(*like)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the {kind} {name} can't be called as a {kind} is: {error}",
            where=origin.path,
            do=f"A {kind} is a function of {wants}.",
        ) from None
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"the {kind} {name} is asynchronous", where=origin.path, do="Write a plain function.")


def _origin_of(function: Callable[..., Any]) -> Origin:
    """Of a function that was not defined in a plugin's file: its module's, else none."""
    try:
        return Origin.of(Path(inspect.getsourcefile(function) or ""))
    except (TypeError, OSError):
        return Origin("a program of your own", "")


@cache
def _of_group(kind: Kind) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=kind.entry_group))


def _entry_points(kind: Kind, name: str | None = None) -> list[EntryPoint]:
    return [point for point in _of_group(kind) if name in (None, point.name)]


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _load(kind: Kind, point: EntryPoint) -> None:
    """Import the module that an entry point names: its decorators add what it gives."""
    package, path = _package(point), ""
    try:
        spec = find_spec(point.module)
        path = spec.origin or "" if spec is not None else ""
        origin = Origin.of(Path(path), package) if path else Origin(point.value, "", package)
        with loading(origin):
            point.load()
    except KvtError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"the {kind} {point.name} of {package} can't be loaded: {type(error).__name__}: {error}",
            where=place_of(error, path) if isinstance(error, Exception) else path,
            do="Correct or uninstall it.",
        ) from None
    if (kind, point.name) not in _plugins:
        raise ConfigError(
            f"the {kind} {point.name} of {package} is announced, but {point.module} defines none of that name",
            where=path,
            do=f"Its entry point in {kind.entry_group} must be called as the {kind} is.",
        )
