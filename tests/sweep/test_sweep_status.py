"""`kvt status`: what is where, from any process, and whether it adds up."""

from pathlib import Path

import orjson
import pytest

from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.schema import connect_for_writing
from kvt_async.session.group_status import lines
from kvt_async.status import show_status, status
from kvt_async.sweep.pending import is_complete
from kvt_async.sweep.sweep import SweepOptions, prepare_group, run
from tests.servers.openai_server import Script, serving
from tests.worlds import db_of, sweep_settings


async def test_it_counts_each_level_and_names_the_failures(tmp_path: Path) -> None:
    async with serving(Script(faults={"http_400": 0.3})) as (_, url):
        settings = sweep_settings(tmp_path, url, "kv.apply={via: none}", "kv.policy=label")
        report = await run(settings, options=SweepOptions(quiet=True, limit=5))
    now = status(settings)
    assert now["invariants_hold"]
    assert [level["level"] for level in now["levels"]] == ["full", "label 0.5", "label 0.2", "full (repeat 1)"]
    assert [level["planned"] for level in now["levels"]] == [12] * 4
    assert now["requests"] == now["responses"] + now["failures"] == 40
    assert (now["failures"], now["pending"]) == (report.failures, 8)
    assert now["failures_by_type"] == {"HttpError": report.failures}
    assert [(s["reason"], s["exit_code"]) for s in now["sessions"]] == [("failures", 4)]
    text = "\n".join(lines(now))
    assert f"{report.failures} x HttpError" in text
    assert "label 0.5" in text


async def test_json_is_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url, n=4)
        await run(settings, options=SweepOptions(quiet=True))
    capsys.readouterr()
    assert show_status(settings, as_json=True) == 0
    assert orjson.loads(capsys.readouterr().out)["responses"] == 16


async def test_counts_that_do_not_add_up_are_said_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url, n=4)
        await run(settings, options=SweepOptions(quiet=True))
    conn = connect_for_writing(db_of(settings))
    conn.execute("PRAGMA foreign_keys=OFF")
    conn.execute("INSERT INTO responses (request_id, attempt_idx, text, created_at) "
                 "SELECT run_id || ':99', 0, 'x', 'now' FROM runs LIMIT 1")  # fmt: skip
    conn.close()
    assert show_status(settings) == 1
    assert "INVARIANT BROKEN: full: 5 settled, 4 queued, 4 planned" in capsys.readouterr().out


async def test_a_group_is_complete_once_every_level_of_the_config_is_settled(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url, n=4)
        assert not is_complete(settings)
        await run(settings, options=SweepOptions(quiet=True, limit=1))
        assert not is_complete(settings)
        await run(settings, options=SweepOptions(quiet=True))
        assert is_complete(settings)
        assert not is_complete(sweep_settings(tmp_path, url, "kv.budgets=[1.0, 0.5]", "kv.control_repeats=2", n=4))
        assert not is_complete(sweep_settings(tmp_path, url, "decoding.max_tokens=9", n=4))


def test_before_anything_was_run_it_says_the_command(tmp_path: Path) -> None:
    settings = sweep_settings(tmp_path, "http://127.0.0.1:9/v1")
    with pytest.raises(MissingPrerequisiteError, match="kvt sweep"):
        status(settings)
    prepare_group(settings, quiet=True)
    with pytest.raises(MissingPrerequisiteError, match="nothing of g was run yet"):
        status(settings)
