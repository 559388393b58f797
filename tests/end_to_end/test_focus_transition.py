"""A second look, by the commands a user types: examples are added where they narrow the zone, and it is paid for."""

import json
from pathlib import Path

from tests.end_to_end.conftest import SMALL, Kvt, ok, overrides
from tests.worlds import query


def test_a_second_sweep_after_an_analysis_extends_every_level(kvt: Kvt, server_url: str, tmp_path: Path) -> None:
    args = ["-c", "demo", *overrides(*SMALL, "sampling.strategy=focus_transition", "kv.policies=[snapkv]",
            "kv.budgets=[1.0, 0.5, 0.1]", f"engine.base_url={server_url}")]  # fmt: skip
    paths = {k: tmp_path / v for k, v in json.loads(ok(kvt("resolve", *args, "--json"))).items()}
    ok(kvt("sweep", *args, "-q"))
    first = json.loads(paths["manifest"].read_text())
    ok(kvt("sweep", *args, "-q"))
    assert json.loads(paths["manifest"].read_text()) == first, "without an analysis nothing grows"
    ok(kvt("all", *args, "-q"))
    before = query(paths["db"], "SELECT request_id, text FROM responses ORDER BY 1")
    levels = query(paths["db"], "SELECT run_id FROM runs ORDER BY 1")

    said = kvt("sweep", *args)
    assert "look 2:" in said.stderr
    ok(said)
    grown = json.loads(paths["manifest"].read_text())
    assert grown["dataset_id"] == first["dataset_id"]
    assert grown["bin_edges"] == first["bin_edges"]
    assert grown["entries"][: len(first["entries"])] == first["entries"]
    assert len(first["entries"]) < len(grown["entries"]) <= 2 * len(first["entries"])
    assert query(paths["db"], "SELECT version, n_entries FROM manifests ORDER BY 1") == [
        (1, len(first["entries"])),
        (2, len(grown["entries"])),
    ]
    assert query(paths["db"], "SELECT run_id FROM runs ORDER BY 1") == levels, "the levels are extended, none is added"
    progress = query(paths["db"], "SELECT planned, responses + failures FROM run_progress")
    assert set(progress) == {(len(grown["entries"]), len(grown["entries"]))}
    assert set(before) <= set(query(paths["db"], "SELECT request_id, text FROM responses"))

    ok(kvt("sweep", *args, "-q"))
    assert json.loads(paths["manifest"].read_text()) == grown, "one analysis pays for one look"
    spent = "SELECT json_extract(method, '$.look'), json_extract(zone_json, '$.level') FROM transition_summary"
    assert set(query(paths["db"], spent)) == {(1, 0.0125)}
    ok(kvt("all", *args, "-q"))
    assert set(query(paths["db"], spent)) == {(2, 0.00625)}
