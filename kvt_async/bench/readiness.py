"""Before the first stage: the server is there and takes what we are going to send; who it is; what it is asked."""

import hashlib
from collections.abc import Sequence

import orjson

from kvt_async.bench.prepared_requests import encode
from kvt_async.bench.stage_run import BenchLive
from kvt_async.bench.workload import Place
from kvt_async.clock import utc_now
from kvt_async.contract.errors import ServerError
from kvt_async.contract.urls import public_url
from kvt_async.engine.request.chat_body import PATHS
from kvt_async.records import Json, Level
from kvt_async.session import handshake
from kvt_async.session.probes import patiently, refuse
from kvt_async.store.reader import Reader
from kvt_async.ways.levels import label


async def ready(live: BenchLive, endpoints: Sequence[str], levels: Sequence[Level]) -> list[Json]:
    """One prompt of its own to every endpoint, and who answers; how long the slowest took is kept for the plans.

    Raises ServerError where nobody does or the reply is a failure, ConfigError where the request or the key is refused.
    """
    await handshake.check_server(live.sender, live.settings, endpoints, live.say)
    (prompt,) = live.workload.prompts([Place(0, "ready" + live.session_id)])  # no measured prompt is warmed by it
    for level in levels:
        body = encode(live.settings, prompt, level)
        for endpoint in level.endpoints:
            attempt = await patiently(live.sender.probe, endpoint, PATHS[live.settings.prompt.endpoint], body)
            refuse(attempt, label(level), live.settings)
            if attempt.reply is None:
                raise ServerError(
                    f"the server does not answer a first request: {attempt.error_type} {attempt.error_message or ''}",
                    where=attempt.endpoint,
                    do="Nothing of the bench was sent. Is the model loaded, and do the lengths fit its context?",
                )
            stretch = max(1.0, live.workload.mean_output_tokens() / max(prompt.output_tokens, 1))
            live.latency_s = max(live.latency_s or 0.0, attempt.latency_s * stretch)
    found = await handshake.identities(live.sender, endpoints, live.settings.model.name)
    return [{**one, "engine_name": handshake.engine_name(one)} for one in found]


async def keep_identities(live: BenchLive, phase: str, endpoints: Sequence[str], found: Sequence[Json] | None) -> None:
    """Rows of server_snapshots; asks again where nothing was found before."""
    known = found if found is not None else await handshake.identities(live.sender, endpoints, live.settings.model.name)
    for endpoint, one in zip(endpoints, known, strict=True):
        identity = {key: value for key, value in one.items() if key != "engine_name"}
        await live.store.insert(
            "server_snapshots",
            {
                "session_id": live.session_id,
                "run_id": None,
                "taken_at": utc_now(),
                "phase": phase,
                "endpoint": public_url(endpoint),
                "identity_json": orjson.dumps(identity).decode(),
            },
        )


def workload_id(workload: Json) -> str:
    """bench__synthetic__81c24d07"""
    text = orjson.dumps(workload, option=orjson.OPT_SORT_KEYS)
    return f"bench__{workload['kind']}__{hashlib.sha256(text).hexdigest()[:8]}"


async def add_workload(live: BenchLive, reader: Reader, dataset_id: str) -> None:
    """The workload's row in `datasets`, unless it is there."""
    if reader.value("SELECT 1 FROM datasets WHERE dataset_id = ?", dataset_id):
        return
    workload, prompt = live.workload.describe(), live.settings.prompt
    await live.store.insert(
        "datasets",
        {
            "dataset_id": dataset_id,
            "name": "bench",
            "task": workload["kind"],
            "tokenizer_name": live.workload.tokenizer.name,
            "tokenizer_sha256": live.workload.tokenizer.sha256,
            "source_revision": workload.get("path_sha256"),
            "metric": "none",
            "prompt_json": orjson.dumps({"endpoint": prompt.endpoint, "system": prompt.system}).decode(),
            "selection_json": orjson.dumps(workload, option=orjson.OPT_SORT_KEYS).decode(),
        },
    )
