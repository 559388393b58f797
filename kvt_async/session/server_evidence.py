"""Evidence that is the server's, not a reply's: a sample of its /metrics page, or a line of the log of its launch.

kv.evidence.metric is a sample, `name` or `name{label="value"}`; `name.label` reads a label's value instead, as in
`vllm:cache_config_info.cache_dtype`. kv.evidence.log is a regular expression whose first group holds the value; the
last match counts, since a log is continued when a server is started again. A name of a dtype reads as its bits.
"""

import asyncio
import re
from collections.abc import Callable, Mapping

from kvt_async.contract.errors import ConfigError, ServerError
from kvt_async.contract.settings_kv import EvidenceSource
from kvt_async.contract.urls import server_root, url_under
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json, Level
from kvt_async.session import metrics_page

_METRIC = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})?(?:\.(?P<read>[A-Za-z_]\w*))?")
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)="([^"]*)"\s*,?')
_NAMES_OF_BITS = {  # payload bits per element; scales and offsets aren't counted, but for llama.cpp's block formats
    32: "float32 f32",
    16: "float16 f16 bfloat16 bf16 half",
    8: "fp8 fp8_e4m3 fp8_e5m2 fp8_inc int8 u8 int8_per_token_head fp8_per_token_head",
    4: "nvfp4 fp4_e2m1 int4_per_token_head",
    8.5: "q8_0",
    6: "q5_1",
    5.5: "q5_0",
    5: "q4_1",
    4.5: "q4_0 iq4_nl",
}
_BITS = {name: bits for bits, names in _NAMES_OF_BITS.items() for name in names.split()}


def check(evidence: EvidenceSource) -> None:
    """Raises ConfigError for a metric or a pattern that can't be read."""
    if evidence.metric is not None and not _METRIC.fullmatch(evidence.metric):
        raise ConfigError(
            f"{evidence.metric!r} is no sample of a metrics page",
            where="kv.evidence.metric",
            do='Write name, name{label="value"}, or name.label for a label\'s value.',
        )
    if evidence.log is not None:
        try:
            groups = re.compile(evidence.log).groups
        except re.error as error:
            raise ConfigError(f"no regular expression: {error}", where="kv.evidence.log") from None
        if groups != 1:
            raise ConfigError(
                f"the pattern has {groups} groups", where="kv.evidence.log", do="Put the value into the only (...)."
            )


async def shown(sender: Sender, level: Level, output: Callable[[], str] | None) -> Json | None:
    """What the servers of a level say of themselves; None where kv.evidence asks nothing of the kind.

    {source, read_from, raw, value}: value None where it was not found, or where several endpoints differ. `output`
    reads what a launched server has printed.
    """
    evidence: Mapping[str, str] = level.evidence
    if pattern := evidence.get("log"):
        text = await asyncio.to_thread(output) if output is not None else ""
        return _found("log", f"log {pattern}", [from_log(text, pattern)])
    if metric := evidence.get("metric"):
        pages = [await _page(sender, endpoint) for endpoint in level.endpoints]
        return _found("metric", f"metric {metric}", [from_metrics(page, metric) for page in pages])
    return None


def from_metrics(page: str, metric: str) -> str | None:
    """The sample's value, or its label's, as text; None where the page has no such sample or isn't one."""
    parts = _METRIC.fullmatch(metric)
    assert parts is not None
    sample = metrics_page.read(page).find(parts["name"], dict(_LABEL.findall(parts["labels"] or "")))
    if sample is None:
        return None
    return sample.labels.get(parts["read"]) if parts["read"] else repr(sample.value)


def from_log(text: str, pattern: str) -> str | None:
    """The first group of the last match."""
    value = None
    for match in re.finditer(pattern, text):
        value = match.group(1)
    return value


def number_of(value: str | None) -> float | None:
    """A number, or the bits of a dtype's name (`torch.bfloat16`, `q8_0`); None for anything else, `auto` included."""
    if value is None:
        return None
    name = value.strip().lower().removeprefix("torch.")
    if name in _BITS:
        return float(_BITS[name])
    try:
        return float(name)
    except ValueError:
        return None


async def _page(sender: Sender, endpoint: str) -> str:
    try:
        return await sender.pages.get_text(url_under(server_root(endpoint), "/metrics"))
    except ServerError:
        return ""


def _found(source: str, read_from: str, values: list[str | None]) -> Json:
    same = len(set(values)) == 1
    return {
        "source": source,
        "read_from": read_from,
        "raw": values[0] if same else values,
        "value": number_of(values[0]) if same else None,
    }
