"""Several tasks in one group, several answers to an example: what is sent, in which order, and what is never sent
twice."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvt_async.contract.errors import ConfigError, ContractMismatchError, GuardError
from kvt_async.contract.formulas.sample_seed import seed_of
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.status import status
from kvt_async.sweep.sweep import SweepOptions, execute, prepare_group, run
from kvt_async.validate import validate
from tests.servers.openai_server import FakeServer, Script, serving
from tests.sweep.test_sweep import grid_bodies
from tests.tables import insert
from tests.ways.test_launch import launching
from tests.worlds import check_invariants, query, states, sweep_settings, write_examples

QUIET = SweepOptions(quiet=True)
NAMES = ("alpha", "beta", "gamma")


def suite(folder: Path, url: str, *overrides: str, names: tuple[str, ...] = NAMES[:2], n: int = 4) -> Settings:
    """`n` examples a task, each of its own length, snapkv at three budgets, one repeat of full cache."""
    entries = []
    for at, name in enumerate(names):
        path = folder / f"{name}.jsonl"
        if not path.exists():
            write_examples(path, n, words=30 + 20 * at)
        entries.append({"dataset": {"task": name, "path": str(path)}})
    return sweep_settings(
        folder, url, "decoding.max_tokens=7", f"tasks={orjson.dumps(entries).decode()}", "analysis.guard=0.99",
        *overrides, n=n,
    )  # fmt: skip


def per_task(settings: Settings) -> dict[str, int]:
    """Answers by task."""
    rows = query(
        settings,
        "SELECT t.task, count(*) FROM responses JOIN requests USING (request_id) JOIN runs u USING (run_id) "
        "JOIN task_contracts t USING (exp_group_id, generation, dataset_id) GROUP BY 1",
    )
    return dict(rows)


def seeds(server: FakeServer) -> dict[str, list[int]]:
    """The seeds that were sent for each prompt."""
    sent: dict[str, list[int]] = {}
    for body in grid_bodies(server):
        sent.setdefault(body["messages"][-1]["content"], []).append(body["seed"])
    return sent


async def test_every_task_is_answered_at_every_level_task_after_task(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = suite(tmp_path, url, "limits.concurrency=1")
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.responses, report.pending) == (0, 32, 0)
    assert per_task(settings) == {"alpha": 16, "beta": 16}
    lengths = [len(body["messages"][-1]["content"]) for body in grid_bodies(server)]
    assert max(lengths[:16]) < min(lengths[16:]), "beta's prompts are longer, and come after all levels of alpha"
    assert {(level["task"], level["level"]) for level in report.levels} == {
        (task, level)
        for task in ("alpha", "beta")
        for level in ("full", "snapkv/aware 0.5", "snapkv/aware 0.2", "full (repeat 1)")
    }
    check_invariants(settings)
    now = status(settings)
    assert (now["planned"], now["pending"], now["invariants_hold"]) == (32, 0, True)
    assert (await run(settings, options=QUIET)).session_id is None


async def test_a_task_that_is_added_sends_its_own_requests_alone(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        await run(suite(tmp_path, url), options=QUIET)
        before = query(suite(tmp_path, url), "SELECT request_id, text FROM responses ORDER BY 1")
        server.bodies.clear()
        wider = suite(tmp_path, url, names=NAMES)
        report = await run(wider, options=QUIET)
    assert (report.sent, len(grid_bodies(server))) == (16, 16)
    assert per_task(wider) == {"alpha": 16, "beta": 16, "gamma": 16}
    after = query(wider, "SELECT request_id, text FROM responses ORDER BY 1")
    assert set(before) < set(after)
    assert query(wider, "SELECT task, look FROM task_contracts ORDER BY 1") == [("alpha", 1), ("beta", 1), ("gamma", 1)]


async def test_a_task_added_after_an_analysis_is_another_look(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = suite(tmp_path, url)
        await run(settings, options=QUIET)
        conn = connect_for_writing(Path(settings.output.runs_dir) / "g/kv_transition.sqlite")
        insert(
            conn, "analysis_state", exp_group_id="g", generation=1, stage="analyze", scope="*", fingerprint="f",
            detail_json="{}",
        )  # fmt: skip
        conn.close()
        wider = suite(tmp_path, url, names=NAMES)
        await run(wider, options=QUIET)
    assert query(wider, "SELECT task, look FROM task_contracts ORDER BY 1") == [("alpha", 1), ("beta", 1), ("gamma", 2)]


async def test_a_budget_that_is_added_sends_its_own_requests_of_every_task(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        await run(suite(tmp_path, url), options=QUIET)
        server.bodies.clear()
        wider = suite(tmp_path, url, "kv.budgets=[1.0, 0.5, 0.3, 0.2]")
        report = await run(wider, options=QUIET)
    assert report.sent == 8
    assert {body["kv"]["budget"] for body in grid_bodies(server)} == {0.3}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("decoding.temperature=0.5", "alpha: decoding.temperature"),
        ("binning.n_per_bin=3", "alpha: dataset.id"),
        ("model.name=other", "model.name"),
    ],
)
async def test_a_task_that_is_changed_is_refused_naming_it(tmp_path: Path, change: str, field: str) -> None:
    async with serving(Script()) as (server, url):
        await run(suite(tmp_path, url), options=QUIET)
        sent = len(server.bodies)
        with pytest.raises(ContractMismatchError) as caught:
            await run(suite(tmp_path, url, change), options=QUIET)
    assert any(line.startswith(field) for line in caught.value.details), caught.value.details
    assert len(server.bodies) == sent


async def test_another_task_in_the_place_of_the_stored_one_is_no_addition(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        await run(suite(tmp_path, url, names=("alpha",)), options=QUIET)
        sent = len(server.bodies)
        with pytest.raises(ContractMismatchError) as caught:
            await run(suite(tmp_path, url, names=("beta",)), options=QUIET)
        assert "tasks   stored alpha   asked beta" in caught.value.details
        assert "name the stored ones beside them" in caught.value.do
        assert len(server.bodies) == sent
        assert (await run(suite(tmp_path, url), options=QUIET)).sent == 16, "both named: beta is added"


async def test_each_launched_server_starts_once_a_level_and_serves_every_task(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    entries = [task.model_dump(exclude_unset=True) for task in suite(tmp_path, url).tasks]
    settings = launching(tmp_path, unused_tcp_port, f"tasks={orjson.dumps(entries).decode()}", "analysis.guard=0.99")
    report = await run(settings, options=QUIET)
    assert (report.exit_code, states(settings)) == (0, {"response": 32})
    started = query(
        settings, "SELECT json_extract(identity_json, '$.version.version') FROM server_snapshots WHERE phase = 'start' "
        "ORDER BY taken_at, n"
    )  # fmt: skip
    assert started == [("full-1.0",), ("kv-0.2",), ("kv-0.5",), ("full-1.0",)]


async def test_interleaved_mixes_the_levels_of_one_task_and_not_the_tasks(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = suite(tmp_path, url, "limits.order=interleaved", "limits.concurrency=1", "kv.control_repeats=0")
        await run(settings, options=QUIET)
    bodies = grid_bodies(server)
    lengths = [len(body["messages"][-1]["content"]) for body in bodies]
    assert max(lengths[:12]) < min(lengths[12:])
    assert len({body["kv"]["budget"] for body in bodies[:3]}) == 3


async def test_each_answer_is_sent_with_a_seed_of_its_own_that_is_equal_at_every_level(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(
            tmp_path, url, "decoding.max_tokens=7", "decoding.samples=3", "decoding.temperature=0.8", n=4
        )
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.responses) == (0, 4 * 3 * 5), "three budgets, and full cache twice more"
    budgets: dict[str, dict[float, Counter[int]]] = {}
    for body in grid_bodies(server):
        of_prompt = budgets.setdefault(body["messages"][-1]["content"], {})
        of_prompt.setdefault(body["kv"]["budget"], Counter())[body["seed"]] += 1
    for nth, levels in enumerate(budgets.values()):
        own = {seed_of(1337, f"e{nth}", sample) for sample in range(3)}
        assert set(levels[0.5]) == set(levels[0.2]) == own
        others = {seed_of(1337, f"e{nth}", sample, draw=2) for sample in range(3)}
        assert levels[1.0] == Counter(dict.fromkeys(own, 2) | dict.fromkeys(others, 1)), "a repeat with each kind"
    assert query(settings, "SELECT DISTINCT sample_idx FROM requests ORDER BY 1") == [(0,), (1,), (2,)]
    assert query(settings, "SELECT count(DISTINCT request_id) FROM requests") == [(60,)]


async def test_more_answers_send_the_new_ones_alone_and_fewer_send_nothing(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):

        def asked(samples: int) -> Settings:
            return sweep_settings(tmp_path, url, "decoding.max_tokens=7", f"decoding.samples={samples}", n=4)

        await run(asked(2), options=QUIET)
        assert query(asked(2), "SELECT count(*) FROM responses") == [(32,)]
        server.bodies.clear()
        report = await run(asked(3), options=QUIET)
        assert (report.sent, report.responses) == (16, 48)
        assert Counter(map(len, seeds(server).values())) == {4: 4}, "one more for each prompt at each of 4 levels"
        server.bodies.clear()
        report = await run(asked(1), options=QUIET)
    assert (report.session_id, report.responses, report.pending, server.bodies) == (None, 16, 0, [])
    assert query(asked(3), "SELECT samples FROM sample_plans ORDER BY 1") == [(2,), (3,)]
    assert status(asked(3))["planned"] == 48


async def test_one_answer_without_a_seed_is_sent_as_it_always_was(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        await run(sweep_settings(tmp_path, url, "decoding.max_tokens=7", n=4), options=QUIET)
    assert not any("seed" in body for body in server.bodies)


async def test_limit_and_retry_failed_know_tasks_and_answers(tmp_path: Path) -> None:
    script = Script()
    async with serving(script) as (server, url):
        settings = suite(tmp_path, url, "decoding.samples=2", "binning.n_bins=2", n=6)
        report = await run(settings, options=SweepOptions(quiet=True, limit=1))
        assert report.planned == report.responses == 2 * 2 * 2 * 4, "tasks x bins x answers x levels"
        report = await run(settings, options=QUIET)
    assert report.responses == 2 * 6 * 2 * 4
    assert len(grid_bodies(server)) == 96
    check_invariants(settings)


async def test_a_guard_that_the_contexts_cannot_reach_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        small = suite(tmp_path, url, "analysis.guard=0.15", "analysis.alpha=0.05")
        with pytest.raises(GuardError) as caught:
            await run(small, options=QUIET)
        assert caught.value.exit_code == 3
        assert caught.value.details == (
            "alpha: 4 contexts can prove no loss below 0.60; 23 would do",
            "beta: 4 contexts can prove no loss below 0.60; 23 would do",
        )
        assert not grid_bodies(server)
        dry = await run(small, options=SweepOptions(quiet=True, dry_run=True))
        assert dry.plan is not None
        assert "alpha: 4 contexts can prove no loss below 0.60; 23 would do" in dry.plan["notes"]
        await run(suite(tmp_path, url), options=QUIET)
        assert (await run(small, options=QUIET)).session_id is None, "what is stored already is no longer a plan"


def test_a_dry_run_of_a_sweep_that_would_be_refused_fails_as_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = "http://127.0.0.1:9/v1"
    small = suite(tmp_path, nowhere, "analysis.guard=0.15", "analysis.alpha=0.05")
    assert execute(small, SweepOptions(dry_run=True)) == 3
    assert "the sweep would be refused: too few examples to prove the guard" in capsys.readouterr().out
    assert execute(small, SweepOptions(dry_run=True, as_json=True)) == 3
    assert orjson.loads(capsys.readouterr().out)["refused"][0].startswith("alpha: 4 contexts can prove")
    large = suite(tmp_path, nowhere, "analysis.alpha=0.05")
    assert execute(large, SweepOptions(dry_run=True)) == 0
    assert "refused" not in capsys.readouterr().out


def test_a_dry_run_for_programs_holds_the_notes_of_the_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"dataset": {"name": "ruler", "task": "vt", "params": {"lengths": [512], "per_length": 2}}}]
    tasks = f"tasks={orjson.dumps(entries).decode()}"
    settings = sweep_settings(tmp_path, "http://127.0.0.1:9/v1", "decoding.max_tokens=7", tasks, "analysis.guard=0.99")
    execute(settings, SweepOptions(dry_run=True, as_json=True))
    notes = orjson.loads(capsys.readouterr().out)["notes"]
    assert "vt: decoding.max_tokens 7, the task's own is 30" in notes


def test_validate_refuses_a_verdict_over_a_task_that_there_is_not(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9/v1"
    with pytest.raises(ConfigError, match="there is no task 'nope'") as caught:
        validate(suite(tmp_path, nowhere, 'analysis.tasks=["alpha", "nope"]'))
    assert caught.value.do == "The tasks: alpha, beta."
    assert validate(suite(tmp_path, nowhere, 'analysis.tasks=["alpha"]'))["exp_group_id"]


async def test_a_verdict_may_be_over_a_task_that_the_group_alone_still_has(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        await run(suite(tmp_path, url, names=NAMES), options=QUIET)
    assert validate(suite(tmp_path, url, 'analysis.tasks=["gamma"]'))["exp_group_id"]


@pytest.mark.parametrize(
    ("n", "alpha", "contexts", "guard"),
    [(4, 0.05, "4 contexts can prove no loss below 0.60; 23 would do", "0.61"),
     (1, 0.05, "1 context can prove no loss below 0.98; 23 would do", "0.98")],
)  # fmt: skip
async def test_the_guard_that_is_named_is_the_smallest_that_every_task_can_prove(
    tmp_path: Path, n: int, alpha: float, contexts: str, guard: str
) -> None:
    async with serving(Script()) as (_, url):
        asked = (f"analysis.alpha={alpha}", "binning.n_bins=1", "binning.n_per_bin=4")
        write_examples(tmp_path / "beta.jsonl", n, words=50)
        with pytest.raises(GuardError) as caught:
            await run(suite(tmp_path, url, *asked, "analysis.guard=0.15"), options=QUIET)
        assert f"beta: {contexts}" in caught.value.details
        assert f"--override analysis.guard={guard}." in caught.value.do
        assert (await run(suite(tmp_path, url, *asked, f"analysis.guard={guard}"), options=QUIET)).exit_code == 0


async def test_no_guard_is_named_where_none_below_1_could_be_proven(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        asked = ("analysis.alpha=0.01", "analysis.guard=0.15", "binning.n_bins=1")
        with pytest.raises(GuardError) as caught:
            await run(suite(tmp_path, url, *asked, n=1), options=QUIET)
    assert caught.value.do == "Raise binning.n_per_bin (`kvt plan -c CONFIG` says how far)."


async def test_a_task_outside_of_the_verdict_need_not_prove_the_guard(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        with pytest.raises(GuardError) as caught:
            await run(suite(tmp_path, url, "analysis.guard=0.15", "analysis.tasks=[alpha]"), options=QUIET)
    assert caught.value.details == ("alpha: 4 contexts can prove no loss below 0.60; 23 would do",)


async def test_what_is_left_out_of_a_suite_is_kept_for_the_report(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(
            tmp_path, url, "dataset={name: ruler, task: '[qf]*', path: null, params: {lengths: [1024]}}",
            "binning={n_bins: 1, n_per_bin: 1}", "kv.budgets=[1.0]", "kv.control_repeats=0", "decoding.max_tokens=null",
        )  # fmt: skip
        await run(settings, options=QUIET)
    (text,) = query(settings, "SELECT notes_json FROM sessions")[0]
    assert [note.partition(":")[0] for note in orjson.loads(text)] == ["qa_1 is left out", "qa_2 is left out"]


def test_prepare_answers_for_every_task(tmp_path: Path) -> None:
    answer: Any = prepare_group(suite(tmp_path, "http://127.0.0.1:9/v1"), quiet=True)
    assert [(task["task"], task["entries"]) for task in answer["tasks"]] == [("alpha", 4), ("beta", 4)]
    assert answer["entries"] == 8


async def test_a_dry_run_counts_every_task_and_answer(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = suite(tmp_path, url, "decoding.samples=3")
        report = await run(settings, options=SweepOptions(quiet=True, dry_run=True))
    assert report.plan is not None
    assert report.plan["requests"] == 2 * 4 * 3 * 4
    assert {level["task"] for level in report.plan["levels"]} == {"alpha", "beta"}
