"""A session's server, before its first request and after its last: is it the one that served this group so far, what
does it say about the budgets it applies, and what of that changed meanwhile."""

import asyncio
from collections.abc import Mapping
from contextlib import closing

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import DriftError
from kvt_async.contract.formulas.data_types import is_name
from kvt_async.contract.formulas.model_config import cached_layers
from kvt_async.contract.formulas.server_identity import drift, known
from kvt_async.contract.urls import public_url
from kvt_async.records import Json, Level
from kvt_async.session import handshake, metrics_page
from kvt_async.session.launch_facts import launch_facts
from kvt_async.session.server_evidence import BYTES_PER_TOKEN, shown
from kvt_async.session.session import ServerSession
from kvt_async.store.reader import Reader
from kvt_async.ways.registry import way_of


async def identify(server: ServerSession, generation: int) -> dict[str, Json]:
    """Every endpoint's identity. Raises DriftError where it is not the server of this generation so far."""
    model = server.settings.model.name
    identities = await handshake.identities(server.sender, server.endpoints, model)
    before = dict(handshake.last_identities(server.reader, server.group, generation))
    for db in server.beside:
        with closing(Reader(db)) as reader:
            before = {**handshake.last_identities(reader, server.group, generation), **before}
    one_server = way_of(server.settings.kv.apply.via).one_server  # wherever it lives by now
    anywhere = known(before.values()) if one_server else {}
    changes = [
        (public_url(endpoint), sentence)
        for endpoint, now in identities.items()
        for sentence in drift(before.get(handshake.identity_key(endpoint, launched_for(server)), anywhere), now, model)
    ]
    _compare_replicas(server, identities)
    for endpoint, sentence in changes:
        server.log("drift", endpoint=endpoint, what=sentence)
    if changes:
        raise DriftError(
            "the server is not the one that served this group before; nothing was sent to it",
            where=changes[0][0],
            details=tuple(sentence for _, sentence in changes),
            do="Bring the old server back, choose a new experiment.exp_group_id, or pass --force to start a new "
            "generation beside the old one: answers of two servers are never mixed.",
        )
    return identities


def launched_for(server: ServerSession) -> str | None:
    """The run this server was launched for: another level's server may well be another."""
    return server.runs[0].run_id if server.launched is not None else None


async def show_evidence(server: ServerSession) -> dict[str, Json]:
    """What the server of each run says of itself, where kv.evidence reads a metric or the launch log."""
    evidence = {run.run_id: await level_evidence(server, run.level) for run in server.runs}
    return {run_id: fields for run_id, fields in evidence.items() if fields is not None}


async def level_evidence(server: ServerSession, level: Level) -> Json | None:
    """What the server of a level says of it before its first request, warned of where that is nothing; None: it isn't
    asked."""
    evidence = await shown_by(server, level)
    if evidence is None:
        return None
    if why := (evidence.get("token_bytes") or {}).get("why"):
        server.say(f"warning: {level.label}: the bytes that a token takes are not known: {why}")
    if evidence["value"] is None and evidence["source"] != BYTES_PER_TOKEN:
        server.say(f"warning: {level.label}: {evidence['read_from']} {_shows_nothing(evidence)}")
    return evidence


def _shows_nothing(evidence: Json) -> str:
    if is_name(evidence["raw"] if isinstance(evidence["raw"], str) else None):
        return (
            f"says {evidence['raw']}, whose bits per element are not known: it can be shown that it differs from full "
            "cache, not by how much"
        )
    why = f" ({evidence['why']})" if "why" in evidence else ""
    return f"shows no budget: it stays unverified{why}"


async def shown_by(server: ServerSession, level: Level) -> Json | None:
    """What the server of a level says of it now; None: kv.evidence asks nothing of the kind."""
    if level.cuts_prompts:  # a cut prompt is served as full cache is
        return None
    evidence = await shown(server.sender, level, server.output)
    config = server.settings.model.config
    if evidence is not None and "token_bytes" in evidence and config is not None:
        evidence["token_bytes"]["layers"] = cached_layers(config)
    return evidence


def changed(before: Json, after: Json) -> str | None:
    """A sentence about evidence that reads otherwise after the requests than it did before them."""
    sizes = [size for one in (before, after) if (size := (one.get("token_bytes") or {}).get("each")) is not None]
    if len(sizes) > 1 and max(sizes) - min(sizes) > 0.02 * max(sizes):
        return f"a token took {sizes[0]:,.0f} bytes before its requests and {sizes[1]:,.0f} after them"
    field = "raw" if after["value"] is None and before["value"] is None else "value"  # names of no known width
    if after[field] in (None, before[field]):
        return None
    return f"{after['read_from']} said {before['raw']} before its requests and {after['raw']} after them"


async def keep_snapshot(
    server: ServerSession, phase: str, endpoint: str, identity: Json, evidence: Mapping[str, Json], run_id: str | None
) -> None:
    """Write a row in `server_snapshots`: who an endpoint is and, by run, the evidence it gives. `run_id`: the stored
    run that it was launched for."""
    await server.store.insert(
        "server_snapshots",
        {
            "session_id": server.session_id,
            "run_id": run_id,
            "taken_at": utc_now(),
            "phase": phase,
            "endpoint": public_url(endpoint),
            "identity_json": orjson.dumps(identity | ({"evidence": dict(evidence)} if evidence else {})).decode(),
        },
    )


async def keep_snapshots(
    server: ServerSession, phase: str, identities: Mapping[str, Json], evidence: Mapping[str, Json]
) -> None:
    """Write the rows of every endpoint, each with the evidence of the runs that it serves."""
    printed = {} if server.output is None else await asyncio.to_thread(launch_facts, server.output)
    for endpoint, shown_by_pages in identities.items():
        identity = shown_by_pages | ({"launch": printed} if printed else {})
        served = (run.run_id for run in server.runs if endpoint in run.level.endpoints)
        of_endpoint = {run_id: evidence[run_id] for run_id in served if run_id in evidence}
        await keep_snapshot(server, phase, endpoint, identity, of_endpoint, launched_for(server))


async def part(server: ServerSession, start: Mapping[str, Json], evidence: Mapping[str, Json]) -> list[str]:
    """Keep who it is at the end; what should be known of the meantime, as sentences. `start` and `evidence` are what it
    was and showed before."""
    model = server.settings.model.name
    identities = await handshake.identities(server.sender, server.endpoints, model)
    after = {run.run_id: await shown_by(server, run.level) for run in server.runs}
    await keep_snapshots(server, "end", identities, {key: value for key, value in after.items() if value is not None})
    sentences = []
    for endpoint, then in start.items():
        for sentence in drift(then, identities[endpoint], model):
            sentences.append(f"{sentence} during the session: analyze will refuse what was sent in it")
            server.log("drift", endpoint=endpoint, what=sentence)
        hits = metrics_page.prefix_hits(then.get("metrics", {}), identities[endpoint].get("metrics", {}))
        if hits is not None and hits["hits"] > 0:
            of = f" of {hits['queries']:,.0f}" if hits["queries"] else ""
            sentences.append(
                f"{hits['hits']:,.0f}{of} prompt tokens came from the prefix cache of {public_url(endpoint)}: "
                "compare latencies within one cache state only"
            )
            server.log("prefix_cache", endpoint=endpoint, **hits)
    for run in server.runs:
        first, last = evidence.get(run.run_id), after.get(run.run_id)
        change = None if first is None or last is None else changed(first, last)
        if change is not None:
            sentences.append(f"{run.level.label}: {change}")
    return sentences


def lacks(server: ServerSession) -> list[str]:
    """What this machine lacked for a connection while it sent, as sentences."""
    lacking = server.sender.room.lacking
    return [f"{n:,} times a connection could not be opened: {reason}" for reason, n in lacking.items()]


def _compare_replicas(server: ServerSession, identities: Mapping[str, Json]) -> None:
    """Warn where the URLs of one level are not one server many times over."""
    for urls in dict.fromkeys(level.endpoints for level in server.levels):
        for url in urls[1:]:
            for sentence in drift(identities[urls[0]], identities[url], server.settings.model.name):
                pair = f"{public_url(url)} beside {public_url(urls[0])}"
                server.say(f"warning: {pair}: {sentence}; one level is served by two servers")
