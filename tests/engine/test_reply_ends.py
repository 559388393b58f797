"""What ends a reply: a finish_reason that says so, or [DONE]. Everything else that stops is a reply cut short."""

import random
from itertools import pairwise
from typing import Any

import polars as pl
import pytest

from analyzer.scoring.failure_labels import at_its_length
from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.contract.formulas.finish_reasons import is_cut_off, meaning
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Attempt
from tests.engine.sending import try_once
from tests.servers.fault_server import FaultServer, Step, chunk, cut, delta, event, head, raw, status, stream, usage
from tests.worlds import engine_settings

FINAL = ("stop", "length", "tool_calls", "function_call", "content_filter", "eos", "eos_token", "STOP", "MAX_TOKENS",
         "end_turn", "stop_sequence", "FinishReason.STOP", "model_length", "sensitive", "COMPLETE")  # fmt: skip
FAILED = ("abort", "error", "network_error", "server_error", "insufficient_system_resource", "cancelled", "timeout",
          "ERROR_LIMIT", "error: worker died", "InternalException", "preempted")  # fmt: skip
WORDS = ("", "null", "None", " ", "none", "running", "in_progress", "not_finished", "FINISH_REASON_UNSPECIFIED")
NOTHING: tuple[Any, ...] = (*WORDS, False, True, 0, 1, 1.5, [], ["stop"], {"type": "stop"})


@pytest.mark.parametrize("word", FINAL)
def test_a_word_that_is_known_to_end_replies_is_final(word: str) -> None:
    assert meaning(word) == "final"


@pytest.mark.parametrize("word", FAILED)
def test_a_word_that_tells_of_a_failure_is_one(word: str) -> None:
    assert meaning(word) == "failed"


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_says_nothing_or_that_nobody_knows_ends_nothing(word: str) -> None:
    assert meaning(word) == "nothing"


def test_only_words_about_length_say_that_a_reply_was_cut_off() -> None:
    assert [is_cut_off(word) for word in ("length", "MAX_TOKENS", "stop", None)] == [True, True, False, False]


@pytest.mark.parametrize(
    "word", ["maxTokens", "FINISH_REASON_MAX_TOKENS", "FinishReason.LENGTH", "max-tokens", "Length "]
)
def test_runner_and_analyzer_read_a_word_about_length_alike(word: str) -> None:
    words = pl.DataFrame({"finish_reason": [word, "endTurn", "FINISH_REASON_STOP"]})
    assert words.select(at_its_length()).to_series().to_list() == [True, False, False]
    assert [is_cut_off(word), meaning("endTurn"), meaning("FINISH_REASON_STOP")] == [True, "final", "final"]


# ------------------------------------------------------------------ on the wire

pytestmark = pytest.mark.usefixtures("every_transport")


def text(word: str, finish: Any = None) -> bytes:
    return event(delta(word, finish=finish))


@pytest.mark.parametrize("finish", NOTHING)
async def test_a_stream_that_breaks_off_is_cut_whatever_stands_for_its_finish_reason(finish: Any) -> None:
    body = event(delta("", role="assistant", finish=finish)) + text("a", finish) + text("b", finish)
    for step in (stream(body), cut(body, len(body)), raw(head() + body), cut(body, len(body), then="reset")):
        got = await try_once(step)
        assert (got.reply, got.error_type, got.partial_text) == (None, ErrorType.STREAM_CUT, "ab")


async def test_the_message_of_a_cut_stream_names_the_word_that_ends_nothing() -> None:
    assert "the last was 'running'" in ((await try_once(stream(text("a", "running")))).error_message or "")


@pytest.mark.parametrize("finish", NOTHING)
async def test_the_same_stream_is_an_answer_once_it_ends(finish: Any) -> None:
    body = text("a", finish) + text("b", finish)
    ended = await try_once(stream(body + text("c", "stop") + event(delta(finish=finish))))
    assert ended.reply is not None
    assert (ended.reply.text, ended.reply.finish_reason, ended.end_state) == ("abc", "stop", EndState.EOF_FINISHED)


@pytest.mark.parametrize("finish", [None, "", "running"])
async def test_a_reply_that_done_alone_ended_has_no_finish_reason(finish: Any) -> None:
    got = await try_once(stream(text("a", finish) + event("[DONE]")))
    assert got.reply is not None
    assert (got.reply.text, got.reply.finish_reason, got.end_state) == ("a", None, EndState.DONE)


async def test_a_finish_reason_that_text_follows_did_not_end_the_reply() -> None:
    """A server that writes "stop" into every chunk: no word of it can be trusted, only [DONE]."""
    body = text("a", "stop") + text("b", "stop")
    assert (await try_once(stream(body))).error_type is ErrorType.STREAM_CUT
    assert (await try_once(stream(text("a", "stop") + text("b")))).error_type is ErrorType.STREAM_CUT
    got = await try_once(stream(body + event("[DONE]")))
    assert got.reply is not None
    assert got.reply.text == "ab"


@pytest.mark.parametrize("word", FAILED)
async def test_a_failure_said_in_the_finish_reason_is_one_in_a_stream_and_in_a_whole_reply(word: str) -> None:
    whole = {"choices": [{"message": {"content": "a"}, "finish_reason": word}]}
    for step in (stream(text("a") + event(delta(finish=word)) + event("[DONE]")), status(200, whole)):
        got = await try_once(step)
        assert (got.reply, got.end_state, got.error_type) == (None, EndState.ERROR_EVENT, ErrorType.STREAM_ERROR)
        assert word in (got.error_message or "")


async def test_a_whole_reply_needs_no_word_to_be_over() -> None:
    for finish in (None, "", "running"):
        body = {"choices": [{"message": {"content": "a"}, "finish_reason": finish}]}
        got = await try_once(status(200, body))
        assert got.reply is not None
        assert (got.reply.text, got.reply.finish_reason) == ("a", None)


# ------------------------------------------------------------------ whatever the chunks carry

N_STREAMS = 60  # of each endpoint and transport


def any_event(rng: random.Random, path: str) -> bytes:
    """One event that doesn't end a reply."""
    words = "".join(
        rng.choices(("a", " [DONE]", '"stop"', "\n\n", "\u2028", "é", "data: [DONE]\n"), k=rng.randrange(3))
    )
    choice: dict[str, Any] = {"index": rng.choice((0, 0, 0, 0, None, "0", 1))}
    if path == "/completions":
        choice["text"] = words
    else:
        field = rng.choice(("content", "content", "reasoning_content", "thinking", "refusal", "role"))
        choice["delta"] = {field: words}
        if rng.random() < 0.1:
            choice["delta"]["tool_calls"] = [{"index": 0, "function": {"name": "stop", "arguments": words}}]
    if rng.random() < 0.6:
        choice["finish_reason"] = rng.choice((*NOTHING, None))
    said: dict[str, Any] = {"choices": [choice]}
    if rng.random() < 0.2:
        said |= usage(completion=rng.randrange(9)) if rng.random() < 0.5 else {"usage": None}
    odd = [b": ping\n\n", event({}), event({"type": "ping", "done": True}), event({"choices": []}), b"id: [DONE]\n\n"]
    return rng.choice(odd) if rng.random() < 0.1 else event(said)


def unfinished(rng: random.Random, path: str) -> bytes:
    """Any number of such events, and perhaps the beginning of one that would end the reply."""
    body = b"".join(any_event(rng, path) for _ in range(rng.randrange(1, 30)))
    last = rng.choice((event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), event("[DONE]"), b""))
    return body + last[: rng.randrange(max(1, len(last) - 3))]


def broken_off(rng: random.Random, body: bytes) -> Step:
    """In any framing: its end never comes, or comes as if all were well."""
    framing = rng.choice(("chunked", "counted", "close"))
    every = rng.choice((None, None, 97))
    if framing == "counted":
        whole = head(length=len(body) + rng.choice((0, 0, 50)))
        return raw(whole + body, then=rng.choice(("close", "reset")), every=every)
    if framing == "close":
        return raw(head() + body, then=rng.choice(("close", "reset")), every=every)
    edges = [0, *sorted(rng.randrange(len(body) + 1) for _ in range(3)), len(body)]
    parts = b"".join(chunk(body[a:b]) for a, b in pairwise(edges) if b > a)
    return raw(head(chunked=True) + parts + rng.choice((chunk(b""), b"")), then="close", every=every)


async def tried(path: str, *steps: Step) -> list[Attempt]:
    async with FaultServer(*steps) as server, Sender(engine_settings(server.base_url)) as sender:
        return [await sender.probe(server.base_url, path, b"{}") for _ in steps]


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
async def test_no_stream_that_is_cut_before_its_end_is_ever_an_answer(path: str) -> None:
    rng = random.Random(f"cut {path}")
    bodies = [unfinished(rng, path) for _ in range(N_STREAMS)]
    attempts = await tried(path, *(broken_off(rng, body) for body in bodies))
    for attempt, body in zip(attempts, bodies, strict=True):
        assert attempt.reply is None, body


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
async def test_every_one_of_these_streams_is_an_answer_once_it_has_ended(path: str) -> None:
    rng = random.Random(f"whole {path}")
    said = {"text": "z"} if path == "/completions" else {"delta": {"content": "z"}}
    parts = [[any_event(rng, path) for _ in range(rng.randrange(1, 30))] for _ in range(N_STREAMS)]
    last = event({"choices": [{"index": 0, **said, "finish_reason": "stop"}]})
    attempts = await tried(path, *(stream(b"".join(events) + last + event("[DONE]")) for events in parts))
    for attempt, events in zip(attempts, parts, strict=True):
        assert attempt.reply is not None, (attempt.error_message, events)
        assert attempt.reply.text.endswith("z")
