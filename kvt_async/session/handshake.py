"""Who serves: is it there, does it take us, what does it call itself; kept at a session's start and end."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

import orjson

from kvt_async.contract.errors import ConfigError, LocalError, ServerError
from kvt_async.contract.formulas.server_identity import known
from kvt_async.contract.gguf_model import SUFFIX
from kvt_async.contract.settings import Settings
from kvt_async.contract.urls import public_url, server_root, url_under
from kvt_async.engine.send.advice import key_advice
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json
from kvt_async.session import metrics_page
from kvt_async.store.reader import Reader

PATIENCE_S, PAUSE_S = (5.0, 15.0, 30.0), 0.5  # with a list of models, try by try; between two tries
SGLANG_FIELDS = (
    *("model_path", "version", "kv_cache_dtype", "dtype", "quantization", "disable_radix_cache"),
    *("attention_backend", "page_size", "tp_size", "quantization_param_path"),
)
# Where servers beside OpenAI's own routes say what they are, and the fields that do: llama.cpp, SGLang.
SELF_DESCRIPTIONS = {
    "props": ("model_path", "build_info", "chat_template", "n_ctx"),
    "server_info": SGLANG_FIELDS,
    "get_server_info": SGLANG_FIELDS,  # until 2026
}
ENTRY_FIELDS = ("root", "parent")  # of our model at /v1/models: which weights, and whose adapter (vLLM, SGLang)
LONG = 200  # characters; longer values are kept as their hash


async def check_server(
    sender: Sender, settings: Settings, endpoints: Sequence[str], say: Callable[[str], None]
) -> bool:
    """Ask every endpoint for its models, and warn of what is odd. False: the model may be another than the config's, or
    this may be no such server at all.

    Raises ServerError where nobody answers, ConfigError where the key is refused.
    """
    listed = True
    for endpoint in endpoints:
        names, status = await _models(sender, endpoint)
        if status == "HTTP 401":
            raise ConfigError(
                "the server refuses the API key (HTTP 401)",
                where=public_url(endpoint),
                do=key_advice(settings.engine),
            )
        if status:
            listed = False
            say(f"warning: {public_url(endpoint)}/models answers {status}: the server's identity is unknown")
        elif names and settings.model.name not in names:
            listed = False
            if len(names) == 1 and _is_same_file(names[0], settings.model.name):
                continue  # llama.cpp's id is the path as it was given to it
            say(f"warning: {public_url(endpoint)} lists {', '.join(names[:5])}, not model.name {settings.model.name!r}")
    return listed


async def identity(sender: Sender, endpoint: str, model: str) -> Json:
    """What can be learnt about the server of `model` without asking it to generate. Missing parts are missing keys."""
    facts: Json = {}
    root, models = server_root(endpoint), url_under(endpoint, "/models")
    with contextlib.suppress(ServerError):
        listed = await sender.pages.get_json(models)
        facts["models"], facts["entry"] = sorted(model_names(listed)), _entry(listed, model)
        facts["server"] = (await sender.pages.get_headers(models)).get("server")
    with contextlib.suppress(ServerError):
        facts["version"] = await sender.pages.get_json(url_under(root, "/version"))
    for path, fields in SELF_DESCRIPTIONS.items() if facts else ():
        with contextlib.suppress(ServerError):
            page = await sender.pages.get_json(url_under(root, f"/{path}"))
            if isinstance(page, dict):
                facts["model"] = facts.get("model", {}) | {name: _brief(page[name]) for name in fields if name in page}
    with contextlib.suppress(ServerError):
        metrics = metrics_page.read(await sender.pages.get_text(url_under(root, "/metrics")))
        facts["metrics"], facts["cache_config"] = metrics.about_load(), metrics.cache_config()
    if not facts:
        facts["unreachable"] = True
    return {key: value for key, value in facts.items() if value not in (None, {}, [])}


async def identities(sender: Sender, endpoints: Sequence[str], model: str) -> dict[str, Json]:
    """Every endpoint's identity, in order."""
    replies = await asyncio.gather(*(identity(sender, endpoint, model) for endpoint in endpoints))
    return dict(zip(endpoints, replies, strict=True))


def last_identities(reader: Reader, group: str, generation: int) -> Mapping[str, Json]:
    """Per key (see `identity_key`) what the generation's snapshots say, the newest word on every part."""
    sql = """SELECT n.endpoint, n.run_id, n.identity_json FROM server_snapshots n JOIN sessions s USING (session_id)
             WHERE s.exp_group_id = ? AND s.generation = ? ORDER BY n.taken_at, n.n"""
    snapshots: dict[str, list[Json]] = {}
    for endpoint, run_id, text in reader.rows(sql, group, generation):
        snapshots.setdefault(identity_key(endpoint, run_id), []).append(orjson.loads(text))
    return {key: known(of_key) for key, of_key in snapshots.items()}


def identity_key(endpoint: str, run_id: str | None) -> str:
    """What must stay one server: the level it was launched for, whatever its port; else the endpoint."""
    return run_id or public_url(endpoint)


def engine_name(facts: Json) -> str:
    """What the server calls itself."""
    version = facts.get("version")
    if isinstance(version, dict) and isinstance(version.get("server"), str):
        return f"{version['server']} {version.get('version', '')}".strip()
    if isinstance(version, dict) and "version" in version:
        return f"{facts.get('server', 'openai-compatible')} {version['version']}"
    return str(facts.get("server", "openai-compatible"))


def model_names(body: object) -> list[str]:
    data = body.get("data") if isinstance(body, dict) else None
    entries = data if isinstance(data, list) else []
    return [m["id"] for m in entries if isinstance(m, dict) and isinstance(m.get("id"), str) and m["id"]]


def _is_same_file(one: str, other: str) -> bool:
    """Whether two names are paths of a GGUF file of one name."""
    name = one.rpartition("/")[2]
    return name.lower().endswith(SUFFIX) and name == other.rpartition("/")[2]


def _entry(body: object, model: str) -> Json | None:
    """What the list of models says of ours, where it is something that tells one model from another."""
    data = body.get("data") if isinstance(body, dict) else None
    for entry in data if isinstance(data, list) else ():
        if isinstance(entry, dict) and entry.get("id") == model:
            return {name: _brief(entry[name]) for name in ENTRY_FIELDS if entry.get(name) is not None}
    return None


async def _models(sender: Sender, endpoint: str) -> tuple[list[str], str]:
    """(ids, "") or ([], how the server refused). Raises ServerError when nobody answers, after a few tries."""
    reason = ""
    advice = (
        f"Start the server (the reference server: `kvt serve --port {urlsplit(endpoint).port or 8000}`), or "
        "correct engine.base_url: --override engine.base_url=http://HOST:PORT/v1."
    )
    for n, patience_s in enumerate(PATIENCE_S):
        try:
            return model_names(await sender.pages.get_json(url_under(endpoint, "/models"), timeout_s=patience_s)), ""
        except LocalError:
            raise
        except ServerError as error:
            reason = error.what
            if reason.startswith("HTTP "):
                return [], reason[:8]
            if reason.startswith("the reply is"):  # somebody answers, in another tongue
                return [], "something that is " + ("no JSON" if "JSON" in reason else reason[len("the reply is ") :])
            if reason.startswith("TLS: "):
                advice = error.do
                break
            if n < len(PATIENCE_S) - 1:
                await asyncio.sleep(PAUSE_S)
    raise ServerError(
        f"no server answers: {reason}",
        where=public_url(endpoint),
        do=f"{advice} Nothing was sent.",
    )


def _brief(value: object) -> object:
    text = value if isinstance(value, str) else ""
    return value if len(text) <= LONG else f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
