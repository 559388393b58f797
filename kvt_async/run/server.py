"""Who serves: is it there, does it take us, what does it call itself; kept at a session's start and end."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import orjson

from kvt_async.contract.errors import ConfigError, ServerError
from kvt_async.contract.settings import Settings
from kvt_async.contract.urls import public_url
from kvt_async.engine.sender import Sender
from kvt_async.records import Json
from kvt_async.store.reader import Reader

TRIES, PAUSE_S = 3, 0.5
METRICS = re.compile(r"(cache|prefix|config_info|requests|tokens)", re.IGNORECASE)
MAX_METRICS = 60
STABLE = ("models", "version", "server", "cache_config")  # what must not change within a group


async def check_server(
    sender: Sender, settings: Settings, endpoints: Sequence[str], say: Callable[[str], None]
) -> bool:
    """Ask every endpoint for its models, say what is odd. False: the model may be another than the config's.

    Raises ServerError where nobody answers, ConfigError where the key is refused.
    """
    listed = True
    for endpoint in endpoints:
        names, status = await _models(sender, endpoint)
        if status == "HTTP 401":
            raise ConfigError(
                "the server refuses the API key (HTTP 401)",
                where=public_url(endpoint),
                do=f"Put the key in the environment variable {settings.engine.api_key_env} (or .env).",
            )
        if status:
            say(f"warning: {public_url(endpoint)}/models answers {status}: the server's identity is unknown")
        elif names and settings.model.name not in names:
            listed = False
            say(f"warning: {public_url(endpoint)} lists {', '.join(names[:5])}, not model.name {settings.model.name!r}")
    return listed


async def identity(sender: Sender, endpoint: str) -> Json:
    """What can be learnt about a server without asking it to generate. Missing parts are missing keys."""
    found: Json = {}
    root = endpoint.removesuffix("/v1")
    with contextlib.suppress(ServerError):
        found["models"] = model_names(await sender.get_json(f"{endpoint}/models"))
        found["server"] = (await sender.get_headers(f"{endpoint}/models")).get("server")
    with contextlib.suppress(ServerError):
        found["version"] = await sender.get_json(f"{root}/version")
    with contextlib.suppress(ServerError):
        found["metrics"], found["cache_config"] = _metrics(await sender.get_text(f"{root}/metrics"))
    if not found:
        found["unreachable"] = True
    return {key: value for key, value in found.items() if value not in (None, {}, [])}


async def identities(sender: Sender, endpoints: Sequence[str]) -> list[Json]:
    """Every endpoint's identity, in order."""
    return list(await asyncio.gather(*(identity(sender, endpoint) for endpoint in endpoints)))


def drift(before: Json, now: Json) -> list[str]:
    """What about a server changed, as sentences. What one side doesn't know is no change."""
    return [
        f"the server's {key} changed from {_short(before[key])} to {_short(now[key])}"
        for key in STABLE
        if key in before and key in now and before[key] != now[key]
    ]


def last_identities(reader: Reader, group: str) -> dict[tuple[str, str | None], Json]:
    """Per endpoint, and level it was launched for if it was, what the group's newest snapshot says."""
    sql = """SELECT n.endpoint, n.run_id, n.identity_json FROM server_snapshots n JOIN sessions s USING (session_id)
             WHERE s.exp_group_id = ? ORDER BY n.snapshot_id"""
    return {(row[0], row[1]): orjson.loads(row[2]) for row in reader.rows(sql, group)}


def engine_name(found: Json) -> str:
    """What the server calls itself."""
    version = found.get("version")
    if isinstance(version, dict) and isinstance(version.get("server"), str):
        return f"{version['server']} {version.get('version', '')}".strip()
    if isinstance(version, dict) and "version" in version:
        return f"{found.get('server', 'openai-compatible')} {version['version']}"
    return str(found.get("server", "openai-compatible"))


def model_names(body: object) -> list[str]:
    data = body.get("data") if isinstance(body, dict) else None
    return [str(m["id"]) for m in data if isinstance(m, dict) and "id" in m] if isinstance(data, list) else []


async def _models(sender: Sender, endpoint: str) -> tuple[list[str], str]:
    """(ids, "") or ([], how the server refused). Raises ServerError when nobody answers, after a few tries."""
    reason = ""
    for n in range(TRIES):
        try:
            return model_names(await sender.get_json(f"{endpoint}/models")), ""
        except ServerError as error:
            reason = error.what
            if reason.startswith("HTTP "):
                return [], reason[:8]
            if reason.startswith("the reply is"):  # somebody answers, in another tongue
                return [], "something that is no JSON"
            if n < TRIES - 1:
                await asyncio.sleep(PAUSE_S)
    raise ServerError(
        f"no server answers: {reason}",
        where=public_url(endpoint),
        do=f"Start the server (the reference server: `kvt serve --port {urlsplit(endpoint).port or 8000}`), or correct "
        "engine.base_url: --override engine.base_url=http://HOST:PORT/v1. Nothing was sent.",
    )


def _metrics(text: str) -> tuple[Json, Json]:
    """(samples that tell about caches and load, labels of vllm:cache_config_info)."""
    samples: Json = {}
    config: Json = {}
    for line in text.splitlines():
        if line.startswith("#") or "_bucket" in line or not METRICS.search(line):
            continue
        name, _, value = line.rpartition(" ")
        if "cache_config_info" in name:
            config = dict(re.findall(r'(\w+)="([^"]*)"', name))
        elif len(samples) < MAX_METRICS:
            try:
                samples[name] = float(value)
            except ValueError:
                continue
    return samples, config


def _short(value: object) -> str:
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return text if len(text) <= 120 else text[:117] + "..."
