"""A whole sweep and its analysis against the kvpress backend, as users run it: an archive in LongBench's format in the
reference model's own words, where snapkv at 0.1 costs answers, and RULER at 512 to 2,048 tokens.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("kvpress")

from kvt_async.demo import reference_server
from kvt_async.serve.weights import REFERENCE_DIR
from tests.end_to_end.conftest import Kvt, kvt, ok, overrides
from tests.end_to_end.test_other_data import GATE, GRID, trec_archive, whole_job
from tests.worlds import query

__all__ = ["kvt"]  # a fixture
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def kvpress_url() -> Iterator[str]:
    with reference_server("--backend", "kvpress", "--model", str(REFERENCE_DIR)) as url:
        yield url


def test_a_longbench_archive_goes_all_the_way_to_the_report(kvt: Kvt, kvpress_url: str, tmp_path: Path) -> None:
    trec_archive(tmp_path)
    pairs = (f"engine.base_url={kvpress_url}", "dataset.path=data.zip", "decoding.max_tokens=8", *GRID, GATE)
    args = ["-c", "longbench-trec", *overrides(*pairs, "kv.budgets=[1.0, 0.05]")]
    db, _ = whole_job(kvt, args, tmp_path)
    assert query(db, "SELECT count(*) FROM outcomes WHERE state = 'response'") == [(8,)]
    assert query(db, "SELECT DISTINCT status FROM run_evidence ORDER BY 1") == [("full",), ("verified",)]
    assert "full cache 1.000" in ok(kvt("check", *args))


def test_ruler_at_512_to_2048_tokens_goes_all_the_way_to_the_report(kvt: Kvt, kvpress_url: str, tmp_path: Path) -> None:
    pairs = (f"engine.base_url={kvpress_url}", "dataset.params={lengths: [512, 2048], per_length: 2}")
    args = ["-c", "ruler", *overrides(*pairs, "decoding.max_tokens=8", "dataset.task=niah_single_1", *GRID)]
    db, _ = whole_job(kvt, args, tmp_path)
    assert query(db, "SELECT count(*) FROM outcomes WHERE state = 'response'") == [(8,)]
    assert query(db, "SELECT DISTINCT status FROM run_evidence ORDER BY 1") == [("full",), ("verified",)]
    (kept,) = query(db, "SELECT min(kv_effective), max(kv_effective) FROM responses JOIN requests USING (request_id) "
                        "JOIN runs USING (run_id) WHERE NOT is_full")  # fmt: skip
    assert kept == pytest.approx((0.25, 0.25), abs=0.01)
