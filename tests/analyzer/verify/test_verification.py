"""`kvt verify` finds every stored number that the facts don't give, says what it can't judge, and writes nothing."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from analyzer import stages
from analyzer.summarise import question
from analyzer.summarise.analyze import analyze
from analyzer.verify import rescoring
from analyzer.verify.differences import Difference, equal
from analyzer.verify.findings import VerifyAnswer
from kvt_async.contract.load import load_settings
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from tests.analyzer.synthetic import make_db

KINDS = (
    ("bin_stats", "acc_mean", 0.97, "bin_idx = -1 AND acc_mean < 0.9"),
    ("bin_stats", "n_failures", 7, "bin_idx = 0"),
    ("bin_stats", "latency_p95_s", 0.001, "bin_idx = -1"),
    ("run_evidence", "reason", "'all is well'", "status <> 'full'"),
    ("budget_stats", "p_safe", 0.001, "bin_idx = -1"),
    ("budget_stats", "drop_json", "'{}'", "bin_idx = -1 AND drop_json <> '{}'"),
    ("transition_summary", "verdict", "'no_transition_in_range'", "bin_idx = -1"),
    ("transition_summary", "zone_json", "'{}'", "bin_idx = -1"),
    ("comparisons", "p_holm", 0.0001, "bin_idx = -1"),
    ("outcome_changes", "change_ci_low", 1.5, "measure = 'completion_tokens'"),
    ("outcome_changes", "full_value", 0.5, "measure = 'identical' AND series <> 'full'"),
    ("scores", "score", 1, "score = 0"),
    ("scores", "failure_label", "'TIMEOUT'", "failure_label IS NULL"),
    ("scores", "pred_norm", "'amber'", "pred_norm <> 'amber'"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scored, analysed and reported group, its files closed."""
    folder = tmp_path_factory.mktemp("verify")
    make_db(
        folder / "kv_transition.sqlite", n_bins=2, n_per_bin=12, series=("snapkv/aware", "random/aware"),
        failures=0.05, hashes=True,
    )  # fmt: skip
    stages.every_stage(settings(folder))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def settings(folder: Path, *overrides: str) -> Settings:
    own = ("experiment.exp_group_id=synthetic", f"db.path={folder / 'kv_transition.sqlite'}", "analysis.charts=false")
    return load_settings(None, (*own, "analysis.resamples=200", *overrides), environ={})


def verified(folder: Path) -> VerifyAnswer:
    return stages.verify_stage(settings(folder))


@pytest.fixture
def edit(folder: Path) -> Callable[[str], None]:
    """Run a statement on the folder's database, as anybody with sqlite3 may."""

    def run(statement: str) -> None:
        with closing(sqlite3.connect(folder / "kv_transition.sqlite")) as conn:
            assert conn.execute(statement).rowcount != 0, statement
            conn.commit()

    return run


def named(found: VerifyAnswer) -> set[tuple[str, str]]:
    parts = [found.facts, found.files, *(checked.findings for checked in found.generations)]
    return {(difference.table, difference.column) for part in parts for difference in part.differences}


def listing(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def test_what_kvt_stored_is_equal_to_the_last_row_and_nothing_is_written(folder: Path) -> None:
    before = listing(folder)
    found = verified(folder)
    assert (found.exit_code, found.total.n_differences) == (0, 0), found.lines
    with closing(connect_for_reading(folder / "kv_transition.sqlite", immutable=True)) as conn:
        for table in ("scores", "bin_stats", "run_evidence", "budget_stats", "transition_summary", "comparisons"):
            assert (
                found.generations[0].findings.checked[table]
                == conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            )
    assert listing(folder) == before


@pytest.mark.parametrize(("table", "column", "value", "where"), KINDS)
def test_an_edited_value_is_named_and_recompute_mends_it(
    folder: Path, edit: Callable[[str], None], table: str, column: str, value: object, where: str
) -> None:
    edit(f"UPDATE {table} SET {column} = {value} WHERE {where}")
    found = verified(folder)
    assert found.exit_code == 1
    assert named(found) - {("files", "made from")} == {(table, column)}
    assert any(column in line and "recomputed" in line for line in found.lines)
    stages.every_stage(settings(folder), recompute=True)
    assert verified(folder).exit_code == 0


def test_a_changed_verdict_is_said_first(folder: Path, edit: Callable[[str], None]) -> None:
    edit("UPDATE scores SET em = 1 - em")
    edit("UPDATE transition_summary SET safe_budget = 0.2 WHERE bin_idx = -1")
    lines = [line for line in verified(folder).lines if ", recomputed" in line]
    assert lines[0].startswith("  VERDICT CHANGES transition_summary")


def test_edited_scores_do_not_vouch_for_the_means_that_were_made_of_them(
    folder: Path, edit: Callable[[str], None]
) -> None:
    edit("DROP TRIGGER scores_changed")
    edit("UPDATE scores SET score = 1")
    with closing(connect_for_reading(folder / "kv_transition.sqlite", write_derived=True)) as conn:
        analyze(conn, settings(folder), recompute=True)
    assert {("scores", "score"), ("bin_stats", "acc_mean")} <= named(verified(folder))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM scores WHERE request_id LIKE '%:3'",
        "DELETE FROM bin_stats WHERE bin_idx = 1",
        "DELETE FROM comparisons",
        "INSERT INTO bin_stats SELECT run_id, dataset_id, 99, n, n_clusters, acc_mean, acc_std, acc_ci_low, "
        "acc_ci_high, acc_ci_method, acc_answered, em_mean, f1_mean, n_failures, fail_rate, fail_ci_low, fail_ci_high, "
        "label_counts_json, flag_counts_json, identical_to_full, latency_p50_s, latency_p95_s, ttft_p50_s, ttft_p95_s, "
        "ttfb_p50_s, tpot_p50_s, tpot_p95_s, prompt_tokens_p50, prompt_tokens_p95, completion_tokens_p50, "
        "completion_tokens_p95, token_len_p50, context_tokens_p50, cached_share, kept_fraction_p50, kept_tokens_p50, "
        "kv_bytes_p50, fingerprint FROM bin_stats WHERE bin_idx = 0",
        "UPDATE transition_summary SET series = 'snapkv/better' WHERE series = 'snapkv/aware'",
        "UPDATE budget_stats SET generation = 7",
    ],
)
def test_rows_that_are_missing_or_that_nothing_gives_are_differences(
    folder: Path, edit: Callable[[str], None], statement: str
) -> None:
    edit(statement)
    assert verified(folder).exit_code == 1


@pytest.mark.parametrize(
    ("statement", "table", "column"),
    [
        ("UPDATE responses SET text = 'amber' WHERE request_id LIKE '%:3'", "scores", "pred_norm"),
        ("UPDATE examples SET context = context || ' '", "manifest_entries", "prompt_sha256"),
        ("UPDATE examples SET context_sha256 = 'a'", "examples", "context_sha256"),
        ("UPDATE experiments SET contract_json = '{}'", "experiments", "contract_sha256"),
        ("UPDATE sessions SET config_yaml = ''", "sessions", "config_sha256"),
        ("UPDATE manifests SET n_entries = 3", "manifests", "n_entries"),
        ("UPDATE requests SET prompt_sha256 = 'a'", "requests", "prompt_sha256"),
        ("UPDATE attempts SET error_type = 'Timeout' WHERE error_type IS NULL", "responses", "attempt_idx"),
    ],
)
def test_a_fact_that_was_changed_contradicts_another(
    folder: Path, edit: Callable[[str], None], statement: str, table: str, column: str
) -> None:
    edit(f"DROP TRIGGER {statement.split()[1]}_no_update")
    edit(statement)
    found = verified(folder)
    assert found.exit_code == 1
    assert {("database", "guard"), (table, column)} <= named(found)


def test_rows_of_another_version_are_not_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, edit: Callable[[str], None]
) -> None:
    monkeypatch.setattr(rescoring, "SCORER_VERSION", "99")
    monkeypatch.setattr(question, "SCORER_VERSION", "99")
    found = verified(folder)
    assert (found.exit_code, found.total.n_differences) == (3, 0)
    assert any("made by scorer" in line and "can't be checked" in line for line in found.lines)


def test_an_analysis_of_another_version_is_not_judged_and_an_edited_score_still_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, edit: Callable[[str], None]
) -> None:
    monkeypatch.setattr("analyzer.verify.verification.ANALYZER_VERSION", "99")
    assert verified(folder).exit_code == 3
    edit("UPDATE scores SET score = 1 - score")
    assert verified(folder).exit_code == 1


def test_an_analysis_older_than_the_facts_is_said_to_be(folder: Path, edit: Callable[[str], None]) -> None:
    edit(
        "INSERT INTO try_series SELECT f.request_id, 1, session_id, '2026-01-03T00:00:00Z' FROM failures f, sessions "
        "LIMIT 1"  # as `kvt sweep --retry-failed` begins
    )
    found = verified(folder)
    assert (found.exit_code, found.total.n_differences) == (3, 0)
    assert any("run `kvt all`" in line for line in found.lines)


def test_the_report_is_checked_against_the_rows(folder: Path) -> None:
    report = folder / "report.md"
    report.write_text(report.read_text(encoding="utf-8").replace("0.5", "0.6"), encoding="utf-8")
    assert named(verified(folder)) == {("files", "sha256")}


def test_a_report_of_other_rows_and_one_without_a_record_are_told(folder: Path) -> None:
    record = folder / ".made.json"
    known = json.loads(record.read_text(encoding="utf-8"))
    known["report"]["rows"] = "of other rows"
    record.write_text(json.dumps(known), encoding="utf-8")
    assert named(verified(folder)) == {("files", "made from")}
    record.unlink()
    assert verified(folder).exit_code == 3


def test_what_a_killed_writer_left_in_its_log_is_read_without_touching_it(folder: Path) -> None:
    db = folder / "kv_transition.sqlite"
    writer = sqlite3.connect(db)
    writer.execute("UPDATE bin_stats SET n = n + 1")
    writer.commit()
    crashed = folder.parent / "crashed"
    crashed.mkdir()
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{db}{suffix}", crashed / f"{db.name}{suffix}")
    writer.close()
    before = listing(crashed)
    assert named(verified(crashed)) == {("bin_stats", "n")}
    assert listing(crashed) == before


def test_all_says_nothing_had_changed_only_where_nothing_had(folder: Path, edit: Callable[[str], None]) -> None:
    def recomputed() -> tuple[int, bool]:
        answer = stages.every_stage(settings(folder)).json()
        return answer["score"]["scored"], answer["analyze"]["recomputed"]

    assert recomputed() == (0, False)
    edit("UPDATE bin_stats SET acc_mean = 0.97 WHERE bin_idx = -1")
    assert recomputed() == (0, True)
    edit("UPDATE scores SET score = 1 WHERE request_id LIKE '%random%'")
    scored, _ = recomputed()
    assert 0 < scored < 24 * 6, "only the runs whose scores were changed"
    assert verified(folder).exit_code == 0


def test_an_earlier_generation_is_checked_and_mended_under_its_own_settings(
    folder: Path, edit: Callable[[str], None]
) -> None:
    later = {"generation": 2, "name": "later", "series": ("snapkv/aware",), "hashes": True}
    make_db(folder / "kv_transition.sqlite", n_bins=2, n_per_bin=12, **later)
    stages.every_stage(settings(folder, "analysis.margin=0.02"))
    assert [(of.generation, of.findings.n_differences) for of in verified(folder).generations] == [(1, 0), (2, 0)]
    edit("UPDATE budget_stats SET p_safe = 0 WHERE generation = 1")
    edit("UPDATE scores SET score = 1 - score WHERE request_id LIKE '%-g1-%'")
    edit("INSERT INTO comparisons SELECT 'invented', generation, dataset_id, series_a, series_b, kv_budget, bin_idx, "
         "n, diff_mean, diff_ci_low, diff_ci_high, p, p_holm, fingerprint FROM comparisons LIMIT 1")  # fmt: skip
    assert verified(folder).exit_code == 1
    stages.every_stage(settings(folder, "analysis.margin=0.02"), recompute=True)
    assert verified(folder).exit_code == 0


def test_a_manifest_at_hand_is_the_one_that_was_stored(
    folder: Path, tmp_path: Path, edit: Callable[[str], None]
) -> None:
    with closing(sqlite3.connect(folder / "kv_transition.sqlite")) as conn:
        (dataset,) = conn.execute("SELECT dataset_id FROM datasets").fetchone()
    manifest = tmp_path / "data" / "processed" / dataset / "manifest.json"
    manifest.parent.mkdir(parents=True)
    body = b'{\n"format": "kvt-manifest-1",\n"version": 1,\n"entries": [\n],\n"examples": [\n],\n'
    manifest.write_bytes(body + b'"sha256": "anything"\n}\n')
    edit("DROP TRIGGER manifests_no_update")
    edit(f"UPDATE manifests SET sha256 = '{hashlib.sha256(body).hexdigest()}'")
    own = settings(folder, f"output.data_dir={tmp_path / 'data'}")
    assert named(stages.verify_stage(own)) == {("database", "guard")}
    manifest.write_bytes(body.replace(b"[\n]", b"[\n{}\n]") + b'"sha256": "anything"\n}\n')
    assert ("manifests", "sha256") in named(stages.verify_stage(own))
    manifest.write_bytes(body.replace(b": 1,", b": 2,") + b'"sha256": "anything"\n}\n')
    assert named(stages.verify_stage(own)) == {("database", "guard")}, "it has grown, which manifests may"


def test_what_libraries_may_add_up_in_another_order_is_no_difference() -> None:
    assert equal(0.1 + 0.2, 0.3)
    assert not equal(0.3, 0.3 + 1e-8)
    assert equal('{"spread": [0.1, null]}', '{"spread": [0.1000001, null]}', 1e-6, json_text=True)
    assert not equal('{"spread": [0.1, 0]}', '{"spread": [0.1, null]}', 1e-6, json_text=True)
    assert not equal(None, 0.0)


def test_a_difference_in_json_is_named_to_its_place() -> None:
    stored, made = '{"spread": [0.1, {"low": 3}], "x": 1}', '{"spread": [0.1, {"low": 4}], "x": 1}'
    text = str(Difference("transition_summary", {"bin_idx": -1}, "zone_json", stored, made))
    assert text == "transition_summary (bin_idx=-1) zone_json.spread[1].low: stored 3, recomputed 4"


def test_facts_alone_are_not_called_verified_numbers(tmp_path: Path) -> None:
    make_db(tmp_path / "kv_transition.sqlite", n_bins=1, n_per_bin=2, hashes=True)
    found = verified(tmp_path)
    assert found.exit_code == 0
    assert found.lines[-1] == "the facts are whole; no derived number was checked (`kvt all` makes them)"
