"""`plugins: [file.py]`: Python files of a config that the user gave with -c, run before anything else happens.

A config that was stored, or that lies in somebody's folder, is never run: only what reads -c calls `load`. Each file is
read once; its SHA-256 is that of the text that runs.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from kvt_async.contract import plugin_registry
from kvt_async.contract.errors import ConfigError, KvtError
from kvt_async.contract.plugin_registry import Kind, Origin, Plugin
from kvt_async.contract.settings import PluginFile, Settings
from kvt_async.contract.vocabulary import OUR_SOURCES

_loaded: dict[str, Origin] = {}  # by path, the files whose plugins are known now


def with_plugins(settings: Settings, say: Callable[[str], None]) -> Settings:
    """Load the files of `plugins` and tell `say` which; the settings with the SHA-256 of each, as sessions store them.

    An installed package that gives a metric or source of the config is recorded among them.
    """
    origins = load(settings.plugins)
    given = [plugin for kind in Kind for plugin in plugin_registry.added(kind)]
    for origin in origins:
        what = ", ".join(f"{plugin.kind} {plugin.name}" for plugin in given if plugin.origin == origin)
        say(f"plugin {origin.path}: {what} (SHA-256 {origin.sha256})")
    installed = [plugin.origin for plugin in _of_packages(settings)]
    for origin in installed:
        say(f"plugin {origin.package}: {origin.path} (SHA-256 {origin.sha256})")
    files = [PluginFile.model_validate(origin.as_json) for origin in (*origins, *installed)]
    return settings.model_copy(update={"plugins": files}) if files else settings


def load(files: Sequence[PluginFile]) -> list[Origin]:
    """Run these files, unless they were run as they are, and forget those of an earlier config.

    Raises ConfigError naming file and line for one that is missing, no Python, raises, gives nothing or gives a name
    that is taken, and for another SHA-256 than the config gives.
    """
    wanted = [file for file in files if not file.package]
    paths = [file.path for file in wanted]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"{path} is named twice", where="plugins", do="Leave one out.")
    for path in [path for path in _loaded if path not in paths]:
        _forget(path)
    return [_one(file) for file in wanted]


def loaded() -> list[tuple[str, str]]:
    """(path, SHA-256) of the files that are loaded: what a new process of this command loads with `load_again`."""
    return [(origin.path, origin.sha256) for origin in _loaded.values()]


def load_again(files: Sequence[tuple[str, str]]) -> None:
    """Load what another process has. Raises ConfigError where a file has changed since."""
    load([PluginFile(path=path, sha256=sha256) for path, sha256 in files])


def _of_packages(settings: Settings) -> list[Plugin]:
    """The plugins of installed packages that a config uses by name."""
    sections = [settings.dataset, *(entry.dataset for entry in settings.tasks if entry.dataset is not None)]
    metrics = [settings.analysis.metric, *(section.params.get("metric") for section in sections)]
    wanted = [(Kind.SOURCE, section.name) for section in sections if section.name not in OUR_SOURCES]
    wanted += [(Kind.METRIC, name) for name in metrics if isinstance(name, str)]
    found = [plugin_registry.find(kind, name) for kind, name in dict.fromkeys(wanted)]
    plugins = [plugin for plugin in found if plugin is not None and plugin.origin.package]
    return list({plugin.origin: plugin for plugin in plugins}.values())


def _one(file: PluginFile) -> Origin:
    path = Path(file.path)
    if not path.is_file():
        what = "this is a folder, not a file" if path.is_dir() else "there is no such file"
        raise ConfigError(
            what, where=f"plugins: {file.path}", do="Name a Python file; relative paths are from the working directory."
        )
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", where=file.path) from None
    origin = Origin(file.path, hashlib.sha256(text).hexdigest())
    if file.sha256 is not None and file.sha256 != origin.sha256:
        raise ConfigError(
            "the file is not the one that was meant",
            where=file.path,
            details=(f"SHA-256 asked   {file.sha256}", f"SHA-256 is      {origin.sha256}"),
            do="Put that file in place, or leave the SHA-256 out of `plugins`.",
        )
    if _loaded.get(file.path) != origin:
        _forget(file.path)
        _run(text, origin)
        _loaded[file.path] = origin
    return origin


def _forget(path: str) -> None:
    plugin_registry.remove(path)
    _loaded.pop(path, None)


def _run(text: bytes, origin: Origin) -> None:
    try:
        code = compile(text, origin.path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ConfigError(
            f"not valid Python: {getattr(error, 'msg', None) or error}",
            where=f"{origin.path}:{line}" if line else origin.path,
            do="Correct the file.",
        ) from None
    module = ModuleType(f"kvt_plugin_{origin.sha256[:16]}")
    module.__file__ = origin.path
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up there
    try:
        with plugin_registry.loading(origin):
            exec(code, module.__dict__)
    except KvtError:
        _forget(origin.path)
        raise
    except (Exception, SystemExit) as error:
        _forget(origin.path)
        raise ConfigError(
            f"raised {type(error).__name__}{f': {error}' if str(error) else ''} while it was loaded",
            where=plugin_registry.place_of(error, origin.path) if isinstance(error, Exception) else origin.path,
            do="Correct the file; a plugin only defines functions, and what it imports must be installed.",
        ) from None
    if not any(plugin.origin == origin for kind in Kind for plugin in plugin_registry.added(kind)):
        raise ConfigError(
            "gives no metric, no source and no policy",
            where=origin.path,
            do="Decorate a function: from kvt_async.plugins import metric, source, policy.",
        )
