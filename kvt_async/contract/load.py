"""default.yaml <- experiment YAML (deep merge) <- environment KVT__a__b <- --override a.b=c -> Settings.

`${VAR}` and `${VAR:-default}` are resolved after the merge, and the settings know which of their values are secret.
The API key is never part of the config: `secret` reads it from the environment or `.env`, as a SecretStr.
"""

import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from kvt_async.contract.config_yaml import MOST_BYTES, TooMuchError, check_size, plain, read_yaml
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.secrets import Secrets
from kvt_async.contract.settings import Settings
from kvt_async.contract.settings_kv import APPLY_KEYS, AS_DATA, Apply, StoredSection, added_keys
from kvt_async.contract.short_forms import written_out
from kvt_async.contract.variables import Use, resolve, secrets_of, whatever_is_secret

ENV_PREFIX = "KVT__"
MOST_LINES = 20  # of what is wrong with one config
EVERY_KEY = "`kvt validate -c demo --print-config` shows every key with a comment."
_CREDENTIALS = re.compile(r"://[^/\s]*@")  # of a URL that is shown in an error
REPLACED = {("kv", key) for key in ("apply", "evidence", "levels", "policies", "budgets")} | {("check",), ("tasks",)}
_SECRET_WORDS = re.compile(r"(api.?key|^key$|secret|password|authorization|cookie|access.?token)", re.IGNORECASE)
_NOT_SECRET = ("api_key_env",)


def load_settings(
    config: Path | None, overrides: Sequence[str] = (), *, environ: Mapping[str, str] | None = None
) -> Settings:
    """Merge and validate. Raises ConfigError naming file and key for anything that isn't a valid config."""
    env = dict(os.environ if environ is None else environ)
    env = {**dotenv(Path(".env")), **env}
    uses: list[Use] = []
    try:
        return _load(config, overrides, env, uses)
    except ConfigError as error:
        raise error.masked(whatever_is_secret(uses, env)) from None


def _load(config: Path | None, overrides: Sequence[str], env: Mapping[str, str], uses: list[Use]) -> Settings:
    merged: dict[str, Any] = Settings.model_construct().model_dump(mode="json")
    origin: dict[str, str] = {}
    for source, given in (
        (str(config), _read_yaml(config) if config else {}),
        ("environment", _from_env(env)),
        ("--override", _from_overrides(overrides)),
    ):
        layer = written_out(plain(given, source), merged, Settings)
        _check_keys(layer, Settings, source, ())
        _drop_other_params(merged["dataset"], layer.get("dataset"))
        _merge(merged, layer, (), source, origin)
    _drop_default_task(merged, origin)
    file = str(config or "default.yaml")
    source_of = partial(_source, origin=origin, file=file)
    resolved = resolve(merged, env, source_of, uses)
    _check_values(resolved, (), origin, file)
    try:
        settings = Settings.model_validate(resolved)
    except ValidationError as error:
        raise _readable(error, origin, file) from None
    values = settings.model_dump(mode="json")
    return settings.with_secrets(secrets_of(values, uses, env, settings.engine.api_key_env, source_of), merged)


def known_secrets(settings: Settings) -> Secrets:
    """The secrets of a config, and the API key as the environment holds it now."""
    key = secret(settings.engine.api_key_env)
    return settings.secrets.and_also(key.get_secret_value() if key else None)


def settings_of_text(
    text: str, *, where: str, overrides: Sequence[str] = (), at_last: Mapping[str, Any] | None = None
) -> Settings:
    """Settings of a stored config, taken as data: nothing of the environment goes in and no variable is resolved.

    `overrides` lie over it, `at_last` over everything. Raises ConfigError naming `where`.
    """
    merged: dict[str, Any] = Settings.model_construct().model_dump(mode="json")
    origin: dict[str, str] = {}
    overriding = plain(_from_overrides(overrides), "--override")
    for source, given in ((where, _stored(text, where)), ("--override", overriding), (where, dict(at_last or {}))):
        _check_keys(layer := written_out(given, merged, Settings), Settings, source, (), as_data=True)
        _merge(merged, layer, (), source, origin)
    _drop_default_task(merged, origin)
    _check_values(merged, (), origin, where)
    try:
        kv = StoredSection.model_validate({"kv": merged["kv"]}, context=AS_DATA).kv
        return Settings.model_validate({**merged, "kv": kv})
    except ValidationError as error:
        raise _readable(error, origin, where) from None


class _PlainLoader(yaml.SafeLoader):
    """Reads YAML without references: kvt writes none, and a few lines of them unfold to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds references")
        return super().compose_node(parent, index)


def _stored(text: str, where: str) -> dict[str, Any]:
    try:
        data = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(
            f"it is not a config that kvt wrote: {getattr(error, 'problem', None) or error or type(error).__name__}",
            where=where,
            do="Pass -c CONFIG.",
        ) from None
    if not isinstance(data, dict):
        raise ConfigError("it is not a config that kvt wrote", where=where, do="Pass -c CONFIG.")
    return data


def plain_yaml(text: str, *, where: str) -> str:
    """A stored config as YAML for a terminal: values escaped, and hidden where they may be secrets."""
    return _dump(redact(_stored(text, where)))


def dump_yaml(settings: Settings) -> str:
    """The whole config as YAML with secrets redacted: what --print-config shows and sessions store."""
    return _dump(redact(known_secrets(settings).json(settings.model_dump(mode="json"))))


def _dump(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def redact(value: Any, key: str = "") -> Any:
    """Replace what may hold a secret: every header value, values under telling names, credentials inside URLs."""
    if isinstance(value, dict):
        return {k: redact(v, "secret" if key == "headers" else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [redact(v, key) for v in value]
    if isinstance(value, str):
        if key not in _NOT_SECRET and _SECRET_WORDS.search(key):
            return "***"
        return re.sub(r"(?<=://)([^/@\s]+@)?([^?\s]*)(\?\S*)?", _hidden, value)
    return value


def _hidden(url: re.Match[str]) -> str:
    credentials, rest, query = url.groups()
    return ("***@" if credentials else "") + rest + ("?***" if query else "")


def secret(name: str) -> SecretStr | None:
    """The API key named by engine.api_key_env, from the environment, else `.env`; None when not set or empty."""
    if not name.isprintable():  # no variable has such a name, and not every text can be looked up
        return None
    value = os.environ.get(name) or dotenv(Path(".env")).get(name)
    return SecretStr(value) if value else None


def dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        return {k: v for k, v in dotenv_values(path).items() if v is not None}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"it can't be read: {reason}", where=str(path), do="Repair it or move it away.") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:  # a device never ends
            content = file.read(MOST_BYTES + 1)
        check_size(len(content))
        data = read_yaml(content.decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"the config can't be read: {reason}", where=str(path), do=_nearby(path)) from None
    except TooMuchError as error:
        raise ConfigError(f"this is no config: {error}", where=str(path), do=EVERY_KEY) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = str(getattr(error, "problem", error))
        advice = "Indent with spaces: YAML takes no tabs." if "character '\\t'" in problem else ""
        raise ConfigError(f"not valid YAML: {problem}", where=at, do=advice) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError("a config is a mapping of sections", where=str(path), do=EVERY_KEY)
    return data


def _nearby(path: Path) -> str:
    folders = [path.parent, Path("configs/experiments")]
    names = [str(f) for d in folders if d.is_dir() for f in d.glob("*.yaml")]
    close = difflib.get_close_matches(path.name, [Path(n).name for n in names], n=1)
    return (
        f"Did you mean {next(n for n in names if Path(n).name == close[0])}?"
        if close
        else "Pass a file, or the name of a shipped experiment: -c demo."
    )


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for name, value in sorted(env.items()):
        if name.startswith(ENV_PREFIX):
            _put(layer, name[len(ENV_PREFIX) :].split("__"), _scalar(value, name), name)
    if "plugins" in layer:  # whoever can leave a .env where we work can't have it run
        raise ConfigError(
            "plugins can't be named by a variable", where=f"{ENV_PREFIX}plugins", do="Name them in the config of -c."
        )
    return layer


def _from_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for text in overrides:
        key, sep, value = text.partition("=")
        if not sep or not key.strip():
            advice = "Write --override kv.budgets='[1.0, 0.5]'."
            raise ConfigError(f"--override {text[:200]!r} is not key=value", do=advice)
        source = f"--override {text[:200]}{'...' if len(text) > 200 else ''}"
        _put(layer, key.strip().split("."), _scalar(value, source), source)
    return layer


def _put(layer: dict[str, Any], keys: list[str], value: Any, source: str) -> None:
    node = layer
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{'.'.join(keys)[:200]} lies under a plain value", where=source)
    node[keys[-1]] = value


def _scalar(text: str, source: str) -> Any:
    try:
        return read_yaml(text)
    except TooMuchError as error:
        raise ConfigError(f"this is no value of a config: {error}", where=source, do=EVERY_KEY) from None
    except yaml.YAMLError:
        return text


def _merge(
    base: dict[str, Any], layer: dict[str, Any], at: tuple[str, ...], source: str, origin: dict[str, str]
) -> None:
    for key, value in layer.items():
        here = (*at, str(key))
        origin[".".join(here)] = source
        if isinstance(value, dict) and isinstance(base.get(key), dict) and here not in REPLACED:
            _merge(base[key], value, here, source, origin)
        else:
            base[key] = value


def _drop_other_params(dataset: Any, other: Any) -> None:
    """dataset.params belong to one source of data: a layer that names an `other` one starts from none."""
    if isinstance(dataset, dict) and isinstance(other, dict) and other.get("name", dataset["name"]) != dataset["name"]:
        dataset["params"] = {}


def _drop_default_task(merged: dict[str, Any], origin: Mapping[str, str]) -> None:
    """Dataset.task's default belongs to the default data set alone; another one's task is what was given."""
    if "dataset.task" not in origin and isinstance(merged["dataset"], dict):
        del merged["dataset"]["task"]


def _check_keys(layer: Any, model: type[BaseModel], source: str, at: tuple[str, ...], *, as_data: bool = False) -> None:
    """Unknown keys are errors with a near miss, before types are looked at. `as_data`: a way that isn't known here may
    have keys that aren't."""
    if not isinstance(layer, dict) or (as_data and model is Apply and layer.get("via") not in APPLY_KEYS):
        return
    added = added_keys() if model is Apply else ()
    for key, value in layer.items():
        field = model.model_fields.get(str(key))
        if field is None and key in added:
            continue
        if field is None:
            close = difflib.get_close_matches(str(key), [*model.model_fields, *added], n=1, cutoff=0.5)
            known = ", ".join([*model.model_fields, *added])
            raise ConfigError(
                f"unknown key {'.'.join((*at, str(key)))[:200]}",
                where=source,
                do=f"Did you mean {'.'.join((*at, close[0]))}?" if close else f"Known here: {known}.",
            )
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                _check_keys(value, inner, source, (*at, str(key)), as_data=as_data)
                if isinstance(value, list):
                    for item in value:
                        _check_keys(item, inner, source, (*at, str(key)), as_data=as_data)


def _check_values(value: Any, at: tuple[str, ...], origin: Mapping[str, str], file: str) -> None:
    """No key may be infinite, not a number or beyond 64 bits, those of free mappings (extra_body, params) neither: JSON
    has no such number, no sum or wait can be made with one, and no database holds it. No text may hold what no path and
    no UTF-8 has."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(key, at, origin, file)
            _check_values(inner, (*at, key), origin, file)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, at, origin, file)
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            key = ".".join(at)
            what = "a NUL character" if "\0" in value else "half a character, which is no UTF-8"
            raise ConfigError(f"{key} holds {what}", where=_source(key, origin, file), do="Write it as plain text.")
    elif (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) >= 1 << 63):
        key = ".".join(at)
        what = "no finite number" if isinstance(value, float) else "beyond 64 bits"
        raise ConfigError(
            f"{key} is {what}" + (f": {value}" if isinstance(value, float) or abs(value) < 1 << 128 else ""),
            where=_source(key, origin, file),
            do="Give a number; where a limit may be absent, null switches it off.",
        )


def _source(key: str, origin: Mapping[str, str], file: str) -> str:
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        if (found := origin.get(".".join(parts[:end]))) is not None:
            return found
    return file


def _readable(error: ValidationError, origin: Mapping[str, str], file: str) -> ConfigError:
    lines, where = [], file
    for item in error.errors(include_url=False)[:MOST_LINES]:
        key = ".".join(str(p) for p in item["loc"])
        where = _source(key, origin, file)
        message = item["msg"].removeprefix("Value error, ")
        given = _CREDENTIALS.sub("://", repr(item["input"]))
        given = given if len(given) <= 200 else given[:200] + "..."
        about = f"{key}: " if key else ""  # what two sections say together names both itself
        lines.append(about + message[:1000] + (f" (got {given})" if not isinstance(item["input"], dict) else ""))
    if error.error_count() > MOST_LINES:
        lines.append(f"and {error.error_count() - MOST_LINES} more")
    return ConfigError("the config is not valid", where=where, details=tuple(lines), do=EVERY_KEY)
