"""Where the numbers come from: contract, server, invocations, commands. Pure."""

import json
from itertools import pairwise
from typing import Any

from analyzer.report.report_tables import Table
from analyzer.results.number_format import NOTHING, count
from analyzer.results.results import Results


def contract(facts: Results) -> Table:
    rows = [
        ("experiment group", facts.group),
        ("generation", f"{facts.generation} of {facts.n_generations}"),
        *flat(facts.contract),
    ]
    for d in facts.datasets:
        rows += [("metric of score", d["metric"]), ("source revision", d["source_revision"] or NOTHING)]
    rows += [("scorer", v) for v in facts.scorer_versions]
    rows.append(("contract SHA-256", facts.contract_sha256))
    known = tuple((k, str(v)) for k, v in rows if v != "null")
    return Table(("Field", "Value"), known, text_columns=2, note="Fields that are null are left out.")


def flat(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Nested mappings as dotted keys, in their own order."""
    if isinstance(value, dict) and value:
        return [pair for k, v in value.items() for pair in flat(v, f"{at}.{k}" if at else str(k))]
    return [(at, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def sessions(facts: Results) -> Table:
    rows = []
    for s in facts.sessions:
        commit = s.git_commit[:12] if s.git_commit else NOTHING
        client = next((c for c in facts.clients if c.session_id == s.session_id), None)
        rows.append(
            (
                s.started_at, s.command, s.reason or "killed", s.kvt_version, commit, s.python,
                s.engine_loop or NOTHING, count(s.concurrency), s.config_sha256[:12],
                f"±{client.error_bound_ms:.2f} ms ({client.signal})" if client else NOTHING,
            )
        )  # fmt: skip
    head = ("Started (UTC)", "Command", "Ended", "kvt", "Commit", "Python", "Loop", "Concurrency", "Config SHA-256",
            "Client's error")  # fmt: skip
    return Table(head, tuple(rows), text_columns=10)


def servers(facts: Results) -> Table:
    rows = [
        (s["endpoint"], s["phase"], "; ".join(f"{k}: {v}" for k, v in flat(json.loads(s["identity_json"])) if _who(k)))
        for s in facts.snapshots
    ]
    note = "Counters of /metrics are in server_snapshots of the database."
    return Table(("Endpoint", "At", "Identity"), tuple(dict.fromkeys(rows)), text_columns=3, note=note)


def _who(key: str) -> bool:
    """Does a snapshot field say who served, rather than count what happened?"""
    return not key.startswith("metrics.") or "config" in key or "_info" in key


def commands(facts: Results) -> list[str]:
    """What reproduces this: the commands as typed, without repeats, then the analysis."""
    typed = list(dict.fromkeys(s.command for s in facts.sessions))
    words = [w for command in typed for w in command.split()]
    config = next((b for a, b in pairwise(words) if a in ("-c", "--config")), "CONFIG")
    return [*typed, f"kvt all -c {config}"]
