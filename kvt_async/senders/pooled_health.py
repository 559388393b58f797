"""How well several processes did as clients: the worst of them speaks, and each is told."""

from collections.abc import Sequence

from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.records import Json


def pooled_health(rows: Sequence[Json | None]) -> Json:
    """Health.row() of the process that did worst, with that of each under `detail.processes`. `rows`: by process, None
    of one that never told; empty where none did."""
    known = [(i, row) for i, row in enumerate(rows) if row is not None]
    if not known:
        return {}
    i, worst = max(known, key=lambda one: (is_bound(one[1]), one[1]["error_bound_ms"]))
    n, clean = len(rows), sum(not is_bound(row) for _, row in known)
    each = [{"process": i + 1, **{key: value for key, value in row.items() if key != "detail"}} for i, row in known]
    return {
        **worst,
        "signal": f"process {i + 1} of {n}: {worst['signal']}; {clean} of {n} processes are client-clean",
        "detail": {**worst["detail"], "processes": each},
    }


def is_bound(row: Json) -> bool:
    """Whether a client, and not the server, limited what it measured."""
    return bool(row["verdict"] == ClientVerdict.BOUND)


def health_line(pooled: Json) -> str:
    """'process 1 client-clean (±0.4 ms), process 2 CLIENT-BOUND (loop lag p99 5.1 ms, allowed 2.0)'."""
    return ", ".join(
        f"process {one['process']} {one['verdict']} "
        + (f"({one['signal']})" if is_bound(one) else f"(±{one['error_bound_ms']:.2g} ms)")
        for one in pooled["detail"]["processes"]
    )
