"""A first look at a server of which only the URL is known: its model, how it takes requests, and how it counts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import orjson

from kvt_async.bench.load_sender import load_sender
from kvt_async.bench.prepared_requests import encode
from kvt_async.bench.stage import bench_levels
from kvt_async.bench.workload import Place, load_workload
from kvt_async.contract.errors import ConfigError, EndState, ErrorType, ServerError
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.contract.urls import public_url, server_root, url_under
from kvt_async.data.tokens import APPROX, CHARS_PER_TOKEN, FILE_NAME, REFERENCE
from kvt_async.engine.send.advice import key_advice
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Attempt
from kvt_async.session.handshake import model_names
from kvt_async.session.probes import patiently, refuse

SHORT_TOKENS, SHORT_REPLY = 64, 8  # of the first prompt, which is there to be counted
ROUTES = ("/chat/completions", "/completions", "/models")  # that may be pasted behind the base
LONGEST_NAME = 80  # characters of a model's, on screen
REFUSALS, NOT_FOUND = (400, 422), 404
# What is left out, one after the other, for a server that refuses a request: with it the sentence that says so.
CONCESSIONS = (
    ("bench.body={}", "it takes no ignore_eos: replies end when the model likes"),
    ("engine.stream_usage=never", "it takes no stream_options: its tokens are counted by chunks"),
    ("decoding.temperature=null", "it takes no temperature of 0: it samples by its own"),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a quick bench was asked for; None: to be found out. Lengths in tokens."""

    url: str
    model: str | None = None
    tokenizer: str | None = None
    input_tokens: int = 256
    output_tokens: int = 64
    api_key_env: str | None = None
    overrides: Sequence[str] = ()


@dataclass(slots=True)
class FirstLook:
    """What is known after it: the overrides that make a config of it, and in sentences how that came about."""

    base_url: str
    model: str
    tokenizer: str
    overrides: list[str]
    streams: bool = True
    latency_s: float = 0.0  # of a request of the asked lengths, alone
    notes: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # models that are listed where the asked one is not


def base_url(text: str) -> str:
    """'localhost:8000' -> 'http://localhost:8000/v1'. A path is kept; a route behind it goes. Raises ConfigError."""
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"{text.rpartition('@')[2]!r} is no URL of a server",
            where="URL",
            do="Write http://HOST:PORT, e.g. http://localhost:8000",
        )
    path = parts.path.rstrip("/")
    for route in ROUTES:
        path = path.removesuffix(route)
    return urlunsplit(parts._replace(path=path or "/v1", fragment=""))


async def look(wish: Wish, shared: Sequence[str]) -> FirstLook:
    """Ask the server for its models, then two prompts. `shared`: overrides that hold whatever it shows.

    Raises ServerError where nobody answers, ConfigError where it is no such server, refuses the key or the requests, or
    serves several models and none was named.
    """
    base = base_url(wish.url)
    sight = FirstLook(base, "", "", [*shared, *wish.overrides, _set("engine.base_url", base)])
    if wish.api_key_env is not None:
        sight.overrides.append(_set("engine.api_key_env", wish.api_key_env))
    async with _sender(sight) as sender:
        await _choose_model(sight, wish, sender)
    sight.tokenizer = wish.tokenizer or (REFERENCE if sight.model == REFERENCE else _beside(sight.model) or APPROX)
    sight.overrides += [_set("model.name", sight.model), _set("tokenizer.name", sight.tokenizer)]
    sight.overrides += ["bench.body={ignore_eos: true}", "bench.concurrency=1"]
    async with _sender(sight) as sender:
        short = await _first_reply(sight, sender)
        asked = await _ask(sight, sender, wish.input_tokens, wish.output_tokens)
        if asked[1].reply is None:
            raise _unanswered(sight, asked[1])
        sight.streams = asked[1].end_state is not EndState.JSON
    sight.overrides.pop(sight.overrides.index("bench.concurrency=1"))
    sight.latency_s = asked[1].latency_s
    _settle_lengths(sight, wish, short, asked)
    return sight


def _set(key: str, value: object) -> str:
    """An override whose value no reader of YAML takes for something else."""
    return f"{key}={orjson.dumps(value).decode()}"


def _sender(sight: FirstLook) -> Sender:
    return load_sender(load_settings(None, sight.overrides), [sight.base_url])


async def _choose_model(sight: FirstLook, wish: Wish, sender: Sender) -> None:
    """The model that was asked for, else the only one that is served; routes without /v1 are seen too."""
    names, reason = await _models(sight, sender)
    if not names and urlsplit(sight.base_url).path == "/v1" and reason.startswith("HTTP 404"):
        root = FirstLook(server_root(sight.base_url), "", "", sight.overrides)
        names, _ = await _models(root, sender)
        if names:
            sight.base_url = root.base_url
            sight.overrides.append(_set("engine.base_url", root.base_url))
    if wish.model is not None:
        sight.model = wish.model
        if names and wish.model not in names:
            sight.others = names
            sight.notes.append(f"/models lists {_named(names[:5])}, not {wish.model}")
    elif len(names) == 1:
        (sight.model,) = names
    elif names:
        raise ConfigError(
            f"the server has {len(names)} models: {_named(names)}",
            where=public_url(sight.base_url),
            do=f"Choose one: kvt bench quick {public_url(wish.url)} --model {names[0][:LONGEST_NAME]}",
        )
    else:
        raise ConfigError(
            f"{public_url(sight.base_url)}/models lists no model{f' ({reason})' if reason else ''}: it speaks no "
            "OpenAI API there",
            where="URL",
            do="Give the URL under which /chat/completions lies (most servers: http://HOST:PORT/v1); where there is no "
            "list of models, name one with --model.",
        )


async def _models(sight: FirstLook, sender: Sender) -> tuple[list[str], str]:
    """(ids, why there are none). Raises ServerError where nobody answers, ConfigError where the key is refused."""
    try:
        return model_names(await sender.pages.get_json(url_under(sight.base_url, "/models"), timeout_s=15)), ""
    except ServerError as error:
        if error.what.startswith(("HTTP 401", "HTTP 403")):
            raise ConfigError(
                f"the server refuses the API key ({error.what[:8]})",
                where=public_url(sight.base_url),
                do=f"{key_advice(sender.settings.engine)} --api-key-env names another variable.",
            ) from None
        if error.what.startswith(("HTTP ", "the reply is")):
            return [], error.what[:8] if error.what.startswith("HTTP ") else error.what[:80]
        raise ServerError(
            f"no server answers: {error.what}",
            where=public_url(sight.base_url),
            do="Start it (the reference server: `kvt serve --port 8000`), or correct the URL. Nothing was sent.",
        ) from None


def _beside(model: str) -> str | None:
    """The folder of a model that was served from this machine's disk, where its tokenizer lies in it."""
    return model if model.startswith("/") and (Path(model) / FILE_NAME).is_file() else None


Asked = tuple[int, Attempt]  # characters of the prompt, and what came of it


async def _first_reply(sight: FirstLook, sender: Sender) -> Asked:
    """A short prompt; fields that a server may refuse are left out until it answers."""
    concessions = iter(CONCESSIONS)
    while True:
        asked = await _ask(sight, sender, SHORT_TOKENS, SHORT_REPLY)
        attempt = asked[1]
        if attempt.reply is not None:
            return asked
        concession = next(concessions, None)
        if attempt.http_status not in REFUSALS or concession is None:
            raise _unanswered(sight, attempt)
        sight.overrides.append(concession[0])
        sight.notes.append(concession[1])


async def _ask(sight: FirstLook, sender: Sender, input_tokens: int, output_tokens: int) -> Asked:
    lengths = [f"bench.workload.{name}={n}" for name, n in _lengths(input_tokens, output_tokens)]
    settings = load_settings(None, [*sight.overrides, *lengths])
    (prompt,) = load_workload(settings).prompts([Place(0, f"look{time.time_ns()}")])
    payload = encode(settings, prompt, bench_levels(settings)[0])
    attempt = await patiently(sender.probe, sight.base_url, payload)
    return sum(len(message["content"]) for message in prompt.messages), attempt


def _named(names: Sequence[str]) -> str:
    """The first of them, each cut where it is too long to be read."""
    shown = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in names[:20]]
    return ", ".join([*shown, *(["..."] if len(names) > 20 else [])])


def _lengths(input_tokens: int, output_tokens: int) -> list[tuple[str, int]]:
    return [("input_tokens", input_tokens), ("output_tokens", output_tokens)]


def _unanswered(sight: FirstLook, attempt: Attempt) -> Exception:
    """Why a first request was not answered, as what is raised."""
    settings: Settings = load_settings(None, sight.overrides)
    if attempt.http_status == NOT_FOUND and sight.others:
        return ConfigError(
            f"the server has no model {sight.model}: {attempt.error_message}",
            where=attempt.endpoint,
            do=f"It lists {_named(sight.others)}.",
        )
    try:
        refuse(attempt, "full", settings)
    except ConfigError as error:
        return error
    if attempt.error_type is ErrorType.CONTEXT_OVERFLOW:
        return ConfigError(
            f"the prompt does not fit the model's context: {attempt.error_message}",
            where=attempt.endpoint,
            do="Ask for shorter ones: --input-tokens 64 --output-tokens 32.",
        )
    return ServerError(
        f"the server does not answer a first request: {attempt.error_type} {attempt.error_message or ''}",
        where=attempt.endpoint,
        do="Nothing of the bench was sent. Is the model loaded? Its log may say more.",
    )


def _settle_lengths(sight: FirstLook, wish: Wish, short: Asked, long: Asked) -> None:
    """The lengths of the workload. Without a tokenizer two prompts that the server counted say how many characters its
    tokens have, and how many tokens it puts around a prompt."""
    input_tokens = wish.input_tokens
    (c1, first), (c2, second) = short, long
    n1, n2 = first.marks.prompt_tokens, second.marks.prompt_tokens
    if sight.tokenizer == APPROX and n1 is not None and n2 is not None and n2 > n1 and c2 > c1:
        per_token = (c2 - c1) / (n2 - n1)
        around = n1 - c1 / per_token
        input_tokens = max(1, round((wish.input_tokens - around) * per_token / CHARS_PER_TOKEN))
        sight.notes.append(
            f"no tokenizer is at hand: by its own counts of two prompts a token has {per_token:.1f} characters, so "
            f"prompts of about {wish.input_tokens} tokens are sent (--tokenizer makes them exact)"
        )
    elif sight.tokenizer == APPROX:
        sight.notes.append(
            f"no tokenizer is at hand and the server counts nothing: a token is taken for {CHARS_PER_TOKEN} characters "
            "(--tokenizer makes lengths exact)"
        )
    got = second.marks.completion_tokens
    if got is not None and got < wish.output_tokens and "bench.body={}" not in sight.overrides:
        sight.notes.append(f"it heeds no ignore_eos: {got} of {wish.output_tokens} asked tokens came")
    if not sight.streams:
        sight.notes.append(
            "it does not stream though it is asked to: TTFT is that of the whole reply, and TPOT cannot be seen"
        )
    sight.overrides += [f"bench.workload.{name}={n}" for name, n in _lengths(input_tokens, wish.output_tokens)]
