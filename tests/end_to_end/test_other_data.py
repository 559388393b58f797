"""The whole job on data of other people's making: archives in LongBench's format, and RULER at 512 to 2,048 tokens.

Where their words are beyond the reference model's vocabulary its answers are wrong; what must hold is the way from the
archive to the report, with the source's provenance in every record.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from kvt_async.contract.load import load_settings
from kvt_async.data.sources import open_source
from kvt_async.records import Example
from tests.data.helpers import longbench_row, longbench_zip
from tests.end_to_end.conftest import Kvt, ok, overrides
from tests.worlds import query

GRID = (
    *("kv.budgets=[1.0, 0.25]", "kv.control_repeats=0", "analysis.resamples=500"),
    *("binning.n_bins=2", "binning.n_per_bin=2", "model.name=reference", "tokenizer.name=reference"),
)


def whole_job(kvt: Kvt, args: list[str], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """sweep and all; the database and the manifest."""
    paths = {k: tmp_path / v for k, v in json.loads(ok(kvt("resolve", *args, "--json"))).items()}
    ok(kvt("sweep", *args, "-q"))
    ok(kvt("all", *args, "-q"))
    assert paths["report_html"].is_file()
    return paths["db"], json.loads(paths["manifest"].read_text(encoding="utf-8"))


def in_the_models_words(tmp_path: Path, n: int = 4) -> list[Example]:
    """Contexts, questions and answers that the reference model can read."""
    params = f"dataset.params={{contexts: {n}, min_tokens: 120, max_tokens: 400, questions_per_context: 1}}"
    config = load_settings(
        None, ["dataset.name=kvtext", "dataset.task=multikey", params, "tokenizer.name=reference"], environ={}
    )
    return [row.example for row in open_source(config).rows()]


def trec_archive(tmp_path: Path) -> Path:
    """data.zip with one task, whose classes are the answers of its own examples."""
    asked = in_the_models_words(tmp_path)
    classes = [e.answers[0] for e in asked]
    rows = [
        longbench_row(i, context=e.context, input=e.question, answers=[*e.answers], dataset="trec", all_classes=classes)
        for i, e in enumerate(asked)
    ]
    return longbench_zip(tmp_path / "data.zip", {"trec": rows})


GATE = "check=[{name: as published, kind: baseline, model: reference, task: trec, value: 0.9, high: 1.0}]"


def test_a_longbench_archive_goes_all_the_way_to_the_report(kvt: Kvt, server_url: str, tmp_path: Path) -> None:
    archive = trec_archive(tmp_path)
    pairs = (f"engine.base_url={server_url}", "dataset.path=data.zip", "decoding.max_tokens=8", *GRID, GATE)
    args = ["-c", "longbench-trec", *overrides(*pairs)]
    db, manifest = whole_job(kvt, args, tmp_path)

    assert manifest["metric"] == "classification_first_line"
    assert manifest["source_revision"] == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    assert query(db, "SELECT count(*), count(DISTINCT run_id) FROM outcomes WHERE state = 'response'") == [(8, 2)]
    assert query(db, "SELECT DISTINCT metric FROM scores") == [("classification_first_line",)]
    assert query(db, "SELECT DISTINCT status FROM run_evidence ORDER BY 1") == [("full",), ("verified",)]
    text = (tmp_path / "runs/longbench_trec/report.md").read_text(encoding="utf-8")
    for said in (manifest["source_revision"], manifest["tokenizer_sha256"], manifest["prompt"]["template_version"]):
        assert said in text
    shown = ok(kvt("show", *args, "--sample", "1"))
    for part in (
        "Please determine the type of the question",
        "golds: ",
        "full cache",
        "classification_first_line 1.00",
    ):
        assert part in shown
    assert "full cache 1.000" in ok(kvt("check", *args))

    args += overrides("prompt.template='[INST] {context} {question} [/INST]'", "kv.budgets=[1.0]")  # another model's
    args += overrides("experiment.exp_group_id=wrong_template")
    whole_job(kvt, args, tmp_path)
    checked = kvt("check", *args)
    assert checked.returncode == 1
    assert "full cache 0.000" in checked.stdout
    assert "expected 0.9 to 1: look at one prompt with `kvt show --sample 1`" in checked.stdout


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


def test_a_chinese_task_goes_all_the_way_to_the_report(kvt: Kvt, server_url: str, tmp_path: Path) -> None:
    asked = {"context": "职员在中午之前数了两遍木桶。" * 9, "input": "谁数了木桶？", "answers": ["职员"]}
    rows = [longbench_row(i, dataset="multifieldqa_zh", language="zh", **asked) for i in range(2)]
    longbench_zip(tmp_path / "data.zip", {"multifieldqa_zh": rows})
    pairs = [f"engine.base_url={server_url}", "dataset.path=data.zip", "dataset.task=multifieldqa_zh"]
    args = ["-c", "longbench-trec", *overrides(*pairs, "decoding.max_tokens=8", *GRID, "binning.n_bins=1")]
    ok(kvt("sweep", *args, "-q", "--allow-dead-knob"))  # foreign words: no eviction can hurt these answers
    ok(kvt("all", *args, "-q"))
    db = next((tmp_path / "runs").glob("*/kv_transition.sqlite"))
    assert query(db, "SELECT metric, count(*) FROM scores GROUP BY metric") == [("qa_f1_zh", 4)]
    shown = ok(kvt("show", *args, "--sample", "1"))
    for part in ("阅读以下文字并用中文简短回答", "谁数了木桶？", "golds: 职员", "qa_f1_zh"):
        assert part in shown
