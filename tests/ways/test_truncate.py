"""The control truncate_prompt: the prompt is cut before it is sent, to as many tokens as a budget keeps."""

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.kv_budget import n_kept
from kvt_async.data.example_prompt import PromptRule
from kvt_async.data.tokens import load_tokenizer
from kvt_async.engine.request.kv_evidence import read_evidence
from kvt_async.records import Example, Level
from kvt_async.sweep.sweep import SweepOptions, run
from kvt_async.ways.levels import make_levels
from kvt_async.ways.truncate import Cutter
from tests.serve.support import example as kvtext_example
from tests.servers.openai_server import Script, serving
from tests.worlds import check_invariants, query, states, sweep_settings

QUIET = SweepOptions(quiet=True)
POLICY = "kv.policies=[{{policy: truncate_prompt, params: {{mode: {}}}}}]"


@pytest.fixture
def cutter(tmp_path: Path) -> Cutter:
    settings = sweep_settings(tmp_path, "http://127.0.0.1:1/v1", "tokenizer.name=reference")
    rule = PromptRule("{context} {question}", None, "chat", None, "v", None)
    return Cutter(rule, load_tokenizer(settings))


def level(tmp_path: Path, mode: str, budget: float, *overrides: str) -> Level:
    kv = (POLICY.format(mode), f"kv.budgets=[1.0, {budget}]")
    levels = make_levels(sweep_settings(tmp_path, "http://127.0.0.1:1/v1", *kv, *overrides)).levels
    return next(found for found in levels if found.budget == budget)


@pytest.mark.parametrize("mode", ["middle", "left"])
@pytest.mark.parametrize("budget", [0.9, 0.5, 0.2, 0.05])
def test_what_is_sent_has_as_many_tokens_as_an_eviction_policy_would_keep(
    cutter: Cutter, tmp_path: Path, mode: str, budget: float
) -> None:
    example = kvtext_example(400)
    cut = cutter.cut(example, 400, level(tmp_path, mode, budget))
    assert cut.tokens == n_kept(400, budget)


def test_the_question_survives_while_there_is_room_and_middle_keeps_both_ends_of_the_context(
    cutter: Cutter, tmp_path: Path
) -> None:
    example = kvtext_example(400)
    middle = cutter.cut(example, 400, level(tmp_path, "middle", 0.3)).messages[0]["content"]
    left = cutter.cut(example, 400, level(tmp_path, "left", 0.3)).messages[0]["content"]
    assert middle.endswith(f" {example.question}")
    assert left.endswith(f" {example.question}")
    assert middle.startswith(example.context[:40])
    assert f"{example.context} {example.question}".endswith(left)
    tiny = cutter.cut(example, 400, level(tmp_path, "middle", 0.01)).messages[0]["content"]
    assert example.question.endswith(tiny)


def test_a_prompt_within_the_budget_is_sent_whole(cutter: Cutter, tmp_path: Path) -> None:
    example = kvtext_example(300)
    cut = cutter.cut(example, 300, level(tmp_path, "left", 500, "kv.unit=tokens"))
    assert (cut.tokens, cut.messages[0]["content"]) == (300, f"{example.context} {example.question}")


def test_earlier_turns_are_kept_and_the_first_message_is_cut(cutter: Cutter, tmp_path: Path) -> None:
    base = kvtext_example(300)
    example = Example("t", "what else ?", base.context, ("a",), {"turns": [[base.question, "112"]]})
    cut = cutter.cut(example, 320, level(tmp_path, "left", 0.5))
    assert [m["role"] for m in cut.messages] == ["user", "assistant", "user"]
    assert cut.messages[0]["content"].endswith(base.question)
    assert cut.messages[2]["content"] == "what else ?"


def test_the_servers_own_count_of_the_prompt_is_the_evidence_and_ours_alone_is_none() -> None:
    expects: dict[str, Any] = {
        "requested": 0.5,
        "unit": "fraction",
        "cut": {"full_tokens": 200, "sent_tokens": 100, "exact": True},
    }
    found, effective = read_evidence(expects, {"prompt_tokens": 100}, {})
    assert (found["source"], effective, found["kept_tokens"]) == ("echoed", 0.5, 100)
    found, effective = read_evidence(expects, {"prompt_tokens": 200}, {})
    assert effective == 1.0  # somebody filled it up again
    found, effective = read_evidence(expects, None, {})
    assert (found["source"], effective) == ("configured", 0.5)
    expects["cut"]["exact"] = False
    assert read_evidence(expects, {"prompt_tokens": 31}, {})[0]["source"] == "configured"


@pytest.mark.parametrize("via", ["none", "body", "endpoint"])
async def test_a_sweep_sends_shorter_prompts_through_any_server_and_stores_their_hash(tmp_path: Path, via: str) -> None:
    async with serving(Script(knob="dead")) as (server, url):
        settings = sweep_settings(
            tmp_path, url, POLICY.format("left"), "kv.control_repeats=0", "kv.params={window: 4}",
            *{"none": ["kv.apply={via: none}"], "body": [],
              "endpoint": [f"kv.apply={{via: endpoint, endpoints: {{full: '{url}'}}}}"]}[via],
        )  # fmt: skip
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.canary, states(settings)) == (0, None, {"response": 36})
    check_invariants(settings)
    lengths = dict(query(settings, "SELECT run_id, prompt_tokens FROM telemetry JOIN requests USING (request_id) "
                                   "WHERE example_id = 'e0'"))  # fmt: skip
    full, half, fifth = sorted(lengths.values(), reverse=True)
    assert abs(half - full / 2) <= 1
    assert abs(fifth - full / 5) <= 2
    labels = query(settings, "SELECT series, kv_budget, kv_mode FROM runs ORDER BY level_idx")
    assert labels == [("full", 1.0, "question_aware"), ("truncate_prompt/left", 0.5, "question_aware"),
                      ("truncate_prompt/left", 0.2, "question_aware")]  # fmt: skip
    sent = {hashlib.sha256(orjson.dumps(body["messages"])).hexdigest() for body in server.bodies}
    assert {row[0] for row in query(settings, "SELECT prompt_sha256 FROM requests")} == sent
    if via == "body":
        assert {orjson.dumps(body["kv"]) for body in server.bodies if "context_chars" in body["kv"]}
        assert {(body["kv"]["policy"], body["kv"]["budget"]) for body in server.bodies} == {("full", 1.0)}
    assert (await run(settings, options=QUIET)).session_id is None


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([POLICY.format("right")], "no mode 'right'"),
        ([POLICY.format("left"), "kv.unit=bits", "kv.budgets=[16, 8]"], "not bits"),
    ],
)
async def test_a_mode_or_unit_that_there_is_not_is_refused_before_anything_is_sent(
    tmp_path: Path, words: tuple[str, ...], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        await run(sweep_settings(tmp_path, "http://127.0.0.1:1/v1", *words), options=QUIET)
