"""`${VAR}` and `${VAR:-default}` in a config, and which of the values that the environment gave are secret.

Secret is what came from the variable that engine.api_key_env names, from one with a telling name (KEY, TOKEN, SECRET,
PASSWORD, CREDENTIAL, AUTH), or from any variable into a header, a URL's user or query, a body's extra fields, or the
environment and command of a launched server. A value that stands elsewhere too, in the model's name say, is no secret
by its place alone. Where a secret would be part of a name, a path or a prompt, it is refused: those are written down.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.secrets import MIN_SECRET, TELLING, Secrets
from kvt_async.contract.settings_kv import added_keys

PLACEHOLDER_KEY = "EMPTY"  # what servers that want no key are commonly given: everybody knows it
TELLING_HEADER = re.compile(r"(?i)auth|key|token|secret|cookie|passw|credential")
TELLING_QUERY = re.compile(TELLING_HEADER.pattern + "|sig|code|pwd")  # names in a URL's query
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")  # read by the hub's client, not by us
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_URL = re.compile(r"https?://(?:(?P<user>[^/?#\s]*)@)?[^?#\s]*(?:(?P<query>[?#].*))?", re.DOTALL)
_URLS = (
    ("engine", "base_url"),
    ("kv", "levels", "base_url"),
    ("kv", "apply", "endpoints"),
    ("kv", "apply", "health_url"),
    ("bench", "metrics_url"),
)
_SENT = (
    ("engine", "headers"),
    ("decoding", "extra_body"),
    ("tasks", "decoding", "extra_body"),
    ("bench", "body"),
    ("kv", "apply", "env"),
    ("kv", "apply", "command"),
)
_BODIES = (("kv", "apply", "body"), ("kv", "apply", "full_body"))
PLACES = (*_URLS, *_SENT, *_BODIES)  # where a secret may stand, beside the keys of ways that were added


@dataclass(frozen=True, slots=True)
class Use:
    """A value that the environment gave: for which variable, at which key, where in its resolved text."""

    variable: str
    value: str
    at: tuple[str, ...]
    text: str
    start: int

    @property
    def key(self) -> str:
        return ".".join(self.at)


def resolve(
    value: Any, env: Mapping[str, str], source: Callable[[str], str], uses: list[Use], at: tuple[str, ...] = ()
) -> Any:
    """The value with its variables filled; what the environment gave is added to `uses`. `source`: where a key was
    written.

    Raises ConfigError for a variable that is neither set nor has a default.
    """
    if isinstance(value, dict):
        return {k: resolve(v, env, source, uses, (*at, str(k))) for k, v in value.items()}
    if isinstance(value, list):
        return [resolve(v, env, source, uses, (*at, str(n))) for n, v in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    text, given, end = "", [], 0
    for match in _VARIABLE.finditer(value, 0, value.rfind("}") + 1):  # one without an end would be sought to the end
        name, default = match.groups()
        text += value[end : match.start()]
        end = match.end()
        if env.get(name):
            given.append((name, env[name], len(text)))
        elif default is None:
            key = ".".join(at)
            raise ConfigError(
                f"{key} needs the environment variable {name}, which is not set",
                where=source(key),
                do=f"export {name}=..., put it in .env, or write ${{{name}:-default}}.",
            )
        text += env.get(name) or default or ""
    text += value[end:]
    uses += [Use(name, filled, at, text, start) for name, filled, start in given]
    return text


def whatever_is_secret(uses: Iterable[Use], env: Mapping[str, str]) -> Secrets:
    """All that may be, to be kept out of an error about a config that is not valid."""
    telling = [value for name, value in env.items() if TELLING.search(name)]
    return Secrets([*telling, *(part for use in uses for part in _secret_parts(use))])


def secrets_of(
    config: Mapping[str, Any],
    uses: Sequence[Use],
    env: Mapping[str, str],
    key_variable: str,
    source: Callable[[str], str],
) -> Secrets:
    """The secrets of a valid config. Raises ConfigError for one that is too short to be hidden, or that stands where it
    would have to be written down.

    `config`: the valid settings as plain values. What a header of a telling name and a URL's user hold is secret also
    where it was written into the config itself.
    """
    named: dict[str, str] = {}  # secret -> its variable
    if key := env.get(key_variable, ""):
        _check_length(key, f"the key in {key_variable}", key_variable, where=f"engine.api_key_env {key_variable}")
        named[key] = key_variable
    placed: set[str] = set()
    for use in uses:
        if _is_telling(use, key_variable):
            if _is_count(use, config):
                continue
            _check_place(use, source)
            _check_length(use.value, f"{use.key}: the value of {use.variable}", use.variable, where=source(use.key))
            named[use.value] = use.variable
        else:
            for part in _secret_parts(use):
                if not any(part in text for _, text in _plain_texts(config)):
                    what = f"{use.key}: what comes from {use.variable}"
                    _check_length(part, what, use.variable, where=source(use.key))
                    placed.add(part)
    named.pop(PLACEHOLDER_KEY, None)
    for value, variable in named.items():
        for at, text in _plain_texts(config):
            if value.strip() in text:
                raise _refused(".".join(at), variable, source)
    hub = [env[name] for name in HUB_TOKENS if env.get(name)]
    return Secrets([*named, *placed, *hub, *_written(config)])


def _written(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in config["engine"]["headers"].items():
        if TELLING_HEADER.search(name):
            yield from (value, value.rpartition(" ")[2])
    for at, text in _texts(config, ()):
        url = _URL.search(text) if _under(_without_indexes(at), _URLS) else None
        if url is not None and url["user"]:
            user, _, password = url["user"].partition(":")
            yield password or user
        if url is not None and url["query"]:
            yield from (value for name, value in parse_qsl(url["query"][1:]) if TELLING_QUERY.search(name))


def _is_telling(use: Use, key_variable: object) -> bool:
    return use.variable == key_variable or TELLING.search(use.variable) is not None


def _is_count(use: Use, config: Mapping[str, Any]) -> bool:
    """MAX_TOKENS=256 at decoding.max_tokens: a number where only numbers are taken is no secret."""
    node: Any = config
    try:
        for key in use.at:
            node = node[int(key)] if isinstance(node, list) else node[key]
    except (KeyError, IndexError):  # null, where a default took its place
        return False
    return not isinstance(node, str)


def _check_place(use: Use, source: Callable[[str], str]) -> None:
    keys = _without_indexes(use.at)
    if _under(keys, _SENT) or _under(keys, _bodies()):
        return
    if _under(keys, _URLS) and _secret_parts(use) == [use.value]:
        return
    raise _refused(use.key, use.variable, source)


def _refused(key: str, variable: str, source: Callable[[str], str]) -> ConfigError:
    return ConfigError(
        f"{key} holds the value of {variable}, which is secret, and what stands there is written down",
        where=source(key),
        do="A secret may stand in engine.headers, a URL's user or query (percent-encoded there), decoding.extra_body, "
        "kv.apply.body, kv.apply.env and kv.apply.command. If this is no secret, use a variable without KEY, TOKEN, "
        "SECRET, PASSWORD, CREDENTIAL and AUTH in its name.",
    )


def _check_length(value: str, what: str, variable: str, *, where: str) -> None:
    if len(value.strip()) < MIN_SECRET and value != PLACEHOLDER_KEY:
        raise ConfigError(
            f"{what} is secret, but shorter than {MIN_SECRET} characters: hiding it would hide ordinary text",
            where=where,
            do=f"Use a longer one. If it is no secret, write it into the config and don't refer to {variable} there; "
            f"a server that wants no key needs none: unset it, or set it to {PLACEHOLDER_KEY}.",
        )


def _secret_parts(use: Use) -> list[str]:
    """What of the value is secret because of where it stands."""
    keys = _without_indexes(use.at)
    if _under(keys, _SENT):
        return [use.value]
    if not _under(keys, _URLS) or (url := _URL.search(use.text)) is None:
        return []
    end = use.start + len(use.value)
    for group in ("user", "query"):
        if url[group] is not None and url.start(group) <= use.start and end <= url.end(group):
            return [use.value]
    parts = []
    if url["user"] is not None and use.start < url.end("user") and end > url.start("user"):
        user, _, password = url["user"].partition(":")
        parts += [part for part in (password or user,) if part in use.value]
    if url["query"] is not None and use.start < url.end("query") and end > url.start("query"):
        pairs = [pair.partition("=") for pair in re.split("[&#?]", url["query"])]
        values = [value or name for name, _, value in pairs if "version" not in name.lower()]
        parts += [part for part in values if len(part) >= MIN_SECRET and part in use.value]
    return parts


def _plain_texts(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text that is written down, with its key."""
    for at, text in _texts(config, ()):
        url = _URL.search(text) if _under(_without_indexes(at), _URLS) else None
        yield at, text if url is None else "".join(text[start:end] for start, end in _outside(url, len(text)))


def _texts(node: Any, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    keys = _without_indexes(at)
    if _under(keys, _SENT) or _under(keys, _bodies()):
        return
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(value, (*at, str(key)))
    elif isinstance(node, list):
        for n, value in enumerate(node):
            yield from _texts(value, (*at, str(n)))
    elif isinstance(node, str):
        yield at, node


def _outside(url: re.Match[str], length: int) -> Iterator[tuple[int, int]]:
    """What of a URL is neither its user nor its query."""
    at = 0
    for group in ("user", "query"):
        if url[group] is not None:
            yield at, url.start(group)
            at = url.end(group)
    yield at, length


def _bodies() -> tuple[tuple[str, ...], ...]:
    return (*_BODIES, *(("kv", "apply", key) for key in added_keys()))


def _without_indexes(at: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key for key in at if not key.isdigit())


def _under(keys: tuple[str, ...], places: Iterable[tuple[str, ...]]) -> bool:
    return any(keys[: len(place)] == place for place in places)
