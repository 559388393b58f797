"""Where the numbers come from: contract, server, invocations, commands. Pure."""

import json
from itertools import pairwise

from analyzer.report.turn_tables import workload
from analyzer.results.number_format import NOTHING, count
from analyzer.results.results import Results
from analyzer.results.text_table import Table, flat, table


def contract(results: Results) -> Table:
    rows = [
        ("experiment group", results.group),
        ("generation", f"{results.generation} of {results.n_generations}"),
        *flat(results.contract),
    ]
    for d in results.datasets:
        own = f"; the task's own metric is {d['metric']}" if results.rescored else ""
        rows += [("metric of score", results.metric + own), ("source revision", d["source_revision"] or NOTHING)]
    rows += workload(results)
    if results.scored_by.file:
        rows.append(("file of the metric", results.scored_by.file))
    rows += [("scorer", v) for v in results.scorer_versions]
    rows.append(("contract SHA-256", results.contract_sha256))
    fields = tuple((k, str(v)) for k, v in rows if v != "null")
    return Table(("Field", "Value"), fields, text_columns=2, note="Fields that are null are left out.")


def sessions(results: Results) -> Table:
    rows = []
    for s in results.sessions:
        commit = s.git_commit[:12] if s.git_commit else NOTHING
        client = next((c for c in results.clients if c.session_id == s.session_id), None)
        rows.append(
            {
                "Started (UTC)": s.started_at,
                "Command": s.command,
                "Ended": s.reason or "killed",
                "kvt": s.kvt_version,
                "Commit": commit,
                "Python": s.python,
                "Loop": s.engine_loop or NOTHING,
                "Concurrency": count(s.concurrency),
                "Config SHA-256": s.config_sha256[:12],
                "Client's error": f"±{client.error_bound_ms:.2f} ms ({client.signal})" if client else NOTHING,
            }
        )
    return table(rows, text_columns=10)


def servers(results: Results) -> Table:
    rows = [
        (s["endpoint"], s["phase"], "; ".join(f"{k}: {v}" for k, v in flat(json.loads(s["identity_json"])) if _who(k)))
        for s in results.snapshots
    ]
    note = "Counters of /metrics are in server_snapshots of the database."
    return Table(("Endpoint", "At", "Identity"), tuple(dict.fromkeys(rows)), text_columns=3, note=note)


def _who(key: str) -> bool:
    """Whether a field of a snapshot says who served, rather than counts what happened."""
    return not key.startswith("metrics.") or "config" in key or "_info" in key


def commands(results: Results) -> list[str]:
    """What reproduces this: the commands as typed, without repeats, then the analysis."""
    typed = list(dict.fromkeys(s.command for s in results.sessions))
    words = [w for command in typed for w in command.split()]
    config = next((b for a, b in pairwise(words) if a in ("-c", "--config")), "CONFIG")
    return [*typed, f"kvt all -c {config}"]
