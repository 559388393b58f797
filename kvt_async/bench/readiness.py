"""Before the first stage: the server is there and takes what we are going to send, and the workload is stored."""

import hashlib
from dataclasses import replace
from itertools import product

import orjson

from kvt_async.bench.prepared_requests import encode
from kvt_async.bench.request_models import asking
from kvt_async.bench.workload import Place, Workload
from kvt_async.contract.errors import ServerError
from kvt_async.records import Json
from kvt_async.session import handshake
from kvt_async.session.probes import patiently, refuse
from kvt_async.session.session import ServerSession


async def ready(server: ServerSession, workload: Workload) -> float:
    """Send one prompt of its own to every endpoint of every level; return the seconds that a request of the workload
    takes, as far as the slowest of these tells.

    Raises ServerError where nobody answers or the reply is a failure, ConfigError where request or key is refused.
    """
    settings, latency_s = server.settings, 0.0
    models: list[str | None] = [model.name for model in settings.bench.models] or [None]
    for model in models:
        await handshake.check_server(server.sender, asking(settings, model), server.endpoints, server.say)
    (prompt,) = workload.prompts([Place(0, "ready" + server.session_id)])  # no measured prompt is warmed by it
    stretch = max(1.0, workload.mean_output_tokens() / max(prompt.output_tokens, 1))
    for level, model in product(server.levels, models):
        asked = replace(prompt, details=replace(prompt.details, model=model))
        payload = encode(settings, asked, level)
        for endpoint in level.endpoints:
            attempt = await patiently(server.sender.probe, endpoint, payload)
            refuse(attempt, level.label, settings)
            if attempt.reply is None:
                raise ServerError(
                    f"the server does not answer a first request: {attempt.error_type} {attempt.error_message or ''}",
                    where=attempt.endpoint,
                    do="Nothing of the bench was sent. Is the model loaded, and do the lengths fit its context?",
                )
            latency_s = max(latency_s, attempt.latency_s * stretch)
    return latency_s


def workload_id(workload: Json) -> str:
    """The id of a workload in `datasets`: bench__synthetic__81c24d07."""
    text = orjson.dumps(workload, option=orjson.OPT_SORT_KEYS)
    return f"bench__{workload['kind']}__{hashlib.sha256(text).hexdigest()[:8]}"


async def add_workload(server: ServerSession, workload: Workload) -> None:
    """Write the workload's row in `datasets`, unless it is there."""
    described, prompt = workload.describe(), server.settings.prompt
    dataset_id = workload_id(described)
    if server.reader.dataset(dataset_id) is not None:
        return
    await server.store.insert(
        "datasets",
        {
            "dataset_id": dataset_id,
            "name": "bench",
            "task": described["kind"],
            "tokenizer_name": workload.tokenizer.name,
            "tokenizer_sha256": workload.tokenizer.sha256,
            "source_revision": described.get("path_sha256"),
            "metric": "none",
            "prompt_json": orjson.dumps({"endpoint": prompt.endpoint, "system": prompt.system}).decode(),
            "selection_json": orjson.dumps(described, option=orjson.OPT_SORT_KEYS).decode(),
        },
    )
