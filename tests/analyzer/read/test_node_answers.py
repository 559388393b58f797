"""Full cache on the servers of several shards, held against the baseline's own."""

from contextlib import closing
from pathlib import Path

from analyzer.read.node_answers import NodeAnswers, node_answers
from analyzer.read.runs import runs
from kvt_async.contract.schema import connect_for_reading, connect_for_writing
from kvt_async.contract.vocabulary import NODE_REPEATS
from tests.group_db import DATASET, GROUP, make_group
from tests.tables import insert, insert_run, insert_session


def group_with_nodes(db: Path, *differing: int, n: int = 20) -> None:
    """Full cache by shard 1, and again at all entries by each shard; shard i + 1 answers `differing[i]` otherwise."""
    make_group(db, n, run_ids=())
    with closing(connect_for_writing(db)) as conn:
        for i in range(max(1, len(differing))):
            insert_session(
                conn, session_id=f"shard{i + 1}", exp_group_id=GROUP, started_at="t", shard_i=i + 1, shard_n=9
            )
        asked = [
            ("full", 0, 1, 0),
            *((f"node{i + 1}", NODE_REPEATS + i + 1, i + 1, k) for i, k in enumerate(differing)),
        ]
        for run_id, repeat_idx, shard, k in asked:
            insert_run(conn, run_id=run_id, exp_group_id=GROUP, dataset_id=DATASET, engine_name="e", series="full",
                       repeat_idx=repeat_idx, prompt_template_version="t", level_idx=0, created_at="t")  # fmt: skip
            for seq in range(n):
                request_id = f"{run_id}:{seq}"
                insert(conn, "requests", request_id=request_id, run_id=run_id, example_id=f"e{seq}",
                       prompt_sha256="p", created_at="t")  # fmt: skip
                insert(conn, "attempts", request_id=request_id, attempt_idx=0, series_idx=0, session_id=f"shard{shard}",
                       started_at="t", endpoint="http://h/v1", end_state="done", latency_s=0.1)  # fmt: skip
                insert(conn, "responses", request_id=request_id, attempt_idx=0, text="b" if seq < k else "a",
                       created_at="t")  # fmt: skip


def test_a_server_is_unlike_where_more_answers_change_on_it_than_on_the_baselines_own(tmp_path: Path) -> None:
    group_with_nodes(tmp_path / "x.sqlite", 1, 2, 9)
    with closing(connect_for_reading(tmp_path / "x.sqlite")) as conn:
        two, three = node_answers(conn, GROUP, 1, DATASET)
        assert [run.run_id for run in runs(conn, GROUP, 1)] == ["full"], "no baseline, no A/A control"
    assert two == NodeAnswers(2, 20, changed=2, changed_again=1, p=0.5)
    assert three == NodeAnswers(3, 20, changed=9, changed_again=1, p=0.5**8)


def test_without_shards_of_levels_there_is_nothing_to_compare(tmp_path: Path) -> None:
    group_with_nodes(tmp_path / "x.sqlite")
    with closing(connect_for_reading(tmp_path / "x.sqlite")) as conn:
        assert node_answers(conn, GROUP, 1, DATASET) == ()
