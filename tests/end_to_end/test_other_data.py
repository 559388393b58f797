"""The whole job on data of other people's making: an archive in LongBench's format, and RULER at 512 to 2,048 tokens.

Their words are beyond the reference model's vocabulary, so its answers are wrong; what must hold is the way from the
archive to the report, with the source's provenance in every record.
"""

import hashlib
import json
import sqlite3
from pathlib import Path

from tests.data.helpers import longbench_row, longbench_zip
from tests.end_to_end.conftest import Kvt, overrides

GRID = (
    *("kv.budgets=[1.0, 0.25]", "kv.control_repeats=0", "analysis.resamples=500"),
    *("binning.n_bins=2", "binning.n_per_bin=2", "model.name=reference", "tokenizer.name=reference"),
)


def ok(done) -> str:
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def query(db: Path, sql: str) -> list[tuple]:
    conn = sqlite3.connect(db)
    try:
        return conn.execute(sql).fetchall()
    finally:
        conn.close()


def whole_job(kvt: Kvt, args: list[str], tmp_path: Path) -> tuple[Path, dict]:
    """sweep and all; the database and the manifest."""
    paths = {k: tmp_path / v for k, v in json.loads(ok(kvt("resolve", *args, "--json"))).items()}
    ok(kvt("sweep", *args, "-q"))
    ok(kvt("all", *args, "-q"))
    assert paths["report_html"].is_file()
    return paths["db"], json.loads(paths["manifest"].read_text(encoding="utf-8"))


def test_a_longbench_archive_goes_all_the_way_to_the_report(kvt: Kvt, server_url: str, tmp_path: Path) -> None:
    asked = {"input": "Question: what is eaten ?\nType:", "answers": ["Food"], "all_classes": ["Food", "Date"]}
    rows = [longbench_row(i, context="the committee met . " * (4 + 9 * i), dataset="trec", **asked) for i in range(6)]
    archive = longbench_zip(tmp_path / "data.zip", {"trec": rows})
    pairs = (f"engine.base_url={server_url}", "dataset.path=data.zip", "decoding.max_tokens=8", *GRID)
    args = ["-c", "longbench-trec", *overrides(*pairs)]
    db, manifest = whole_job(kvt, args, tmp_path)

    assert manifest["metric"] == "classification_first_line"
    assert manifest["source_revision"] == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    assert query(db, "SELECT count(*), count(DISTINCT run_id) FROM outcomes WHERE state = 'response'") == [(8, 2)]
    assert query(db, "SELECT DISTINCT metric FROM scores") == [("classification_first_line",)]
    assert query(db, "SELECT min(score) >= 0 AND max(score) <= 1 FROM scores") == [(1,)]
    text = (tmp_path / "runs/longbench_trec/report.md").read_text(encoding="utf-8")
    for said in (manifest["source_revision"], manifest["tokenizer_sha256"], manifest["prompt"]["template_version"]):
        assert said in text
    assert "nothing to lose (a floor)" in text
    shown = ok(kvt("show", *args, "--sample", "1"))
    for part in ("Please determine the type of the question", "golds: Food", "full cache", "classification_first_line"):
        assert part in shown


def test_ruler_at_512_to_2048_tokens_goes_all_the_way_to_the_report(kvt: Kvt, server_url: str, tmp_path: Path) -> None:
    pairs = (
        f"engine.base_url={server_url}",
        "dataset.params={lengths: [512, 2048], per_length: 2}",
        "decoding.max_tokens=8",
        "dataset.task=niah_single_1",
        *GRID,
    )
    db, manifest = whole_job(kvt, ["-c", "ruler", *overrides(*pairs)], tmp_path)

    assert manifest["metric"] == "string_match_all"
    assert manifest["source_revision"].startswith("ruler-")
    lengths = sorted(entry["token_len"] for entry in manifest["entries"])
    assert all(384 - 60 <= n <= 384 for n in lengths[:2])  # 512 and 2,048 less the 128 tokens of the answer
    assert all(1920 - 60 <= n <= 1920 for n in lengths[2:])
    assert query(db, "SELECT count(*) FROM outcomes WHERE state = 'response'") == [(8,)]
    assert query(db, "SELECT count(*) FROM failures") == [(0,)]
