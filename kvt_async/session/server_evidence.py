"""Evidence that is the server's, not a reply's: a sample of its /metrics page, an entry of one of its JSON pages, or a
line of the log of its launch.

kv.evidence.metric is a sample, `name` or `name{label="value"}`; `name.label` reads a label's value instead, as in
`vllm:cache_config_info.cache_dtype`. kv.evidence.json is a page and the dotted path of an entry in it. kv.evidence.log
is a regular expression whose first group holds the value; the last match counts, since a log is continued when a server
is started again. A name of a data type reads as its bits.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kvt_async.contract.errors import ConfigError, ServerError
from kvt_async.contract.formulas.data_types import number_of
from kvt_async.contract.settings_kv import EvidenceSource, Quantity
from kvt_async.contract.urls import public_url, server_root, url_under
from kvt_async.contract.vocabulary import Unit
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json, Level
from kvt_async.session import metrics_page

PLACES = ("log", "metric", "json")  # where a server says something of itself, in the order they are looked at
BYTES_PER_TOKEN = "bytes per token"  # source of what is read where no name is
MOST_RAW = 200  # characters of a value that are kept
_METRIC = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})?(?:\.(?P<read>[A-Za-z_]\w*))?")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)="([^"]*)"\s*,?')


@dataclass(frozen=True, slots=True)
class Reading:
    """What stood at one place of one server. `raw` None: nothing, and `why` says so."""

    raw: str | None
    why: str = ""


def check(evidence: EvidenceSource) -> None:
    """Raises ConfigError for a metric or a pattern that can't be read."""
    places: list[tuple[str, EvidenceSource | Quantity]] = [("kv.evidence", evidence)]
    if (size := evidence.bytes_per_token) is not None:
        places.append(("kv.evidence.bytes_per_token.memory", size.memory))
        places += [("kv.evidence.bytes_per_token.tokens", one) for one in size.tokens]
    for where, place in places:
        _check_place(where, place.metric, place.log)


def _check_place(where: str, metric: str | None, log: str | None) -> None:
    if metric is not None and not _METRIC.fullmatch(metric):
        raise ConfigError(
            f"{metric!r} is no sample of a metrics page",
            where=f"{where}.metric",
            do='Write name, name{label="value"}, or name.label for a label\'s value.',
        )
    if log is not None:
        try:
            groups = re.compile(log).groups
        except re.error as error:
            raise ConfigError(f"no regular expression: {error}", where=f"{where}.log") from None
        if groups != 1:
            raise ConfigError(
                f"the pattern has {groups} groups", where=f"{where}.log", do="Put the value into the only (...)."
            )


async def shown(sender: Sender, level: Level, output: Callable[[], str] | None) -> Json | None:
    """What the servers of a level say of themselves; None where kv.evidence asks nothing of the kind.

    {source, read_from, raw, value, why}: value None where it was not found or is no number and no known data type, or
    where several endpoints differ; `why`, where nothing was found, says what stood there. `output` reads what a
    launched server has printed.
    """
    evidence: Mapping[str, Any] = level.evidence
    server = LevelServer(sender, level, output)
    asked = level.budget if level.unit == Unit.BITS else None
    source = next((name for name in PLACES if name in evidence), None)
    found: Json | None = None
    if source is not None:
        found = _found(source, read_from(source, evidence[source]), await server.read(source, evidence[source]), asked)
    if (size := evidence.get("bytes_per_token")) is not None:
        token_bytes = await read_token_bytes(server, size)
        found = found or {"source": BYTES_PER_TOKEN, "read_from": BYTES_PER_TOKEN, "raw": None, "value": None}
        found["token_bytes"] = token_bytes
    return found


@dataclass(frozen=True, slots=True)
class LevelServer:
    """The servers of one level, to be read. `output` reads what a launched one has printed."""

    sender: Sender
    level: Level
    output: Callable[[], str] | None

    async def read(self, source: str, place: Any) -> list[Reading]:
        """What stands at a place, on each endpoint of the level; in the log of its launch, once."""
        if source == "log":
            text = await asyncio.to_thread(self.output) if self.output is not None else ""
            return [from_log(text, place)]
        read = _of_metric if source == "metric" else _of_json
        return [await read(self.sender, endpoint, place) for endpoint in self.level.endpoints]


def from_metrics(page: str, metric: str) -> str | None:
    """The sample's value, or its label's, as text; None where the page has no such sample or isn't one."""
    parts = _METRIC.fullmatch(metric)
    assert parts is not None
    sample = metrics_page.read(page).find(parts["name"], dict(_LABEL.findall(parts["labels"] or "")))
    if sample is None:
        return None
    return sample.labels.get(parts["read"]) if parts["read"] else repr(sample.value)


def from_log(text: str, pattern: str) -> Reading:
    """The first group of the last match."""
    value = None
    for match in re.finditer(pattern, text):
        value = match.group(1)
    return Reading(value, "" if value is not None else "no line of the log matches")


def from_json(page: Any, path: str) -> Reading:
    """The value at a dotted path of keys and list numbers, as text. A key may hold dots itself: the longest one that is
    there is taken."""
    node, rest = page, path.split(".")
    while rest:
        step = next((n for n in range(len(rest), 0, -1) if _has(node, ".".join(rest[:n]))), None)
        if step is None:
            return Reading(None, f"there is no {path!r}: {_holds(node)}")
        key, rest = ".".join(rest[:step]), rest[step:]
        node = node[int(key)] if isinstance(node, list) else node[key]
    if isinstance(node, dict | list):
        return Reading(None, f"{path!r} is no value: {_holds(node)}")
    if node is None:
        return Reading(None, f"{path!r} is null")
    return Reading(str(node).lower() if isinstance(node, bool) else str(node)[:MOST_RAW])


def _has(node: Any, key: str) -> bool:
    if isinstance(node, list):
        return key.isascii() and key.isdigit() and int(key) < len(node)
    return isinstance(node, dict) and key in node


def _holds(node: Any) -> str:
    if isinstance(node, dict):
        return "it holds " + (", ".join([str(key)[:40] for key in node][:8]) or "nothing")
    return f"a list of {len(node)}" if isinstance(node, list) else f"{str(node)[:40]!r} holds nothing"


async def _of_metric(sender: Sender, endpoint: str, metric: str) -> Reading:
    try:
        page = await sender.pages.get_text(url_under(server_root(endpoint), "/metrics"))
    except ServerError as error:
        return Reading(None, f"{error.where}: {error.what}")
    value = from_metrics(page, metric)
    return Reading(value, "" if value is not None else "the page has no such sample")


async def _of_json(sender: Sender, endpoint: str, place: Mapping[str, str]) -> Reading:
    url = place["url"]
    try:
        page = await sender.pages.get_json(url_under(server_root(endpoint), url) if url.startswith("/") else url)
    except ServerError as error:
        return Reading(None, f"{error.where}: {error.what}")
    return from_json(page, place["path"])


def read_from(source: str, place: Any) -> str:
    """A place as it is stored and shown."""
    return f"json {public_url(place['url'])} {place['path']}" if source == "json" else f"{source} {place}"


async def read_token_bytes(server: LevelServer, size: Mapping[str, Any]) -> Json:
    """{memory, tokens, each, read_from}: bytes, tokens, and bytes of one token; `each` None, with `why`, where one of
    them was not found, is no positive number or differs between endpoints."""
    numbers: list[float | None] = []
    words, reasons = [], []
    for quantity in (size["memory"], *size["tokens"]):
        source = next(name for name in ("value", *PLACES) if name in quantity)
        if source == "value":
            numbers.append(float(quantity["value"]))
            words.append(f"{quantity['value']:g} as configured")
            continue
        readings = await server.read(source, quantity[source])
        words.append(read_from(source, quantity[source]))
        number, why = _one_number(readings)
        numbers.append(number)
        if why:
            reasons.append(f"{words[-1]}: {why}")
    memory, tokens = numbers[0], numbers[1:]
    record: Json = {"read_from": f"{words[0]} over {' x '.join(words[1:])}", "each": None}
    if memory is None or any(number is None for number in tokens):
        return {**record, "why": "; ".join(reasons)}
    memory *= _UNITS[size["memory"].get("unit", "bytes")]
    held = math.prod(number for number in tokens if number is not None)
    each = memory / held
    if not 0 < each < math.inf:
        return {**record, "why": f"{memory:g} bytes over {held:g} tokens is no size of a token"}
    return {**record, "memory": memory, "tokens": held, "each": each}


def _one_number(readings: list[Reading]) -> tuple[float | None, str]:
    texts = {reading.raw for reading in readings}
    if len(texts) > 1:
        return None, "endpoints of one level differ"
    if readings[0].raw is None:
        return None, readings[0].why
    try:
        number = float(readings[0].raw.replace(",", ""))  # logs write thousands with commas
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        return None, f"{readings[0].raw!r} is no positive number"
    return number, ""


def _found(source: str, read_from: str, readings: list[Reading], asked: float | None) -> Json:
    values = [reading.raw for reading in readings]
    same = len(set(values)) == 1
    why = next((reading.why for reading in readings if reading.why), "" if same else "endpoints of one level differ")
    return {
        "source": source,
        "read_from": read_from,
        "raw": values[0] if same else values,
        "value": number_of(values[0], asked) if same else None,
        **({"why": why} if why else {}),
    }
