"""Usage objects -> tokens: two dialects, many names, and what the reply's text belies."""

from typing import Any, NamedTuple

import pytest

from kvt_async.engine.reply.token_counts import token_counts
from kvt_async.engine.reply.transcript import Transcript
from kvt_async.records import Json
from tests.engine.sending import try_once
from tests.servers.fault_server import delta, event, stream, usage


class Counts(NamedTuple):
    prompt: int | None
    completion: int | None
    cached: int | None


def counts_of(*events: Any) -> Counts:
    transcript = Transcript()
    transcript.add(events, range(len(events)))
    return Counts(*token_counts(transcript))


def words(n: int, text: str = "w ") -> list[Json]:
    return [delta(text) for _ in range(n)]


def counted(**fields: Any) -> Json:
    return {"choices": [], "usage": fields}


def reasoning(n: int) -> Json:
    return {"completion_tokens_details": {"reasoning_tokens": n}}


@pytest.mark.parametrize(
    ("fields", "completion"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 108, "total_tokens": 128, **reasoning(100)}, 108),
        ({"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 128, **reasoning(100)}, 108),
        ({"prompt_tokens": 20, "completion_tokens": 8, **reasoning(100)}, 108),
        ({"completion_tokens": 108, **reasoning(100)}, 108),
        ({"prompt_tokens": 20, "completion_tokens": 108, "total_tokens": 200, **reasoning(100)}, 108),
        ({"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 220, **reasoning(100)}, 200),
        ({"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 120, **reasoning(100)}, 100),
        ({"input_tokens": 20, "output_tokens": 8, "output_tokens_details": {"reasoning_tokens": 100}}, 108),
        ({"completion_tokens": 8, "reasoning_tokens": 100}, 108),
        ({"completion_tokens": 8, **reasoning(0)}, 8),
    ],
)
def test_reasoning_is_counted_once_whether_inside_or_beside(fields: Json, completion: int) -> None:
    assert counts_of(*words(2), counted(**fields)).completion == completion


def test_reasoning_that_came_and_is_counted_in_the_total_alone_is_counted() -> None:
    usage = counted(prompt_tokens=20, completion_tokens=2, total_tokens=52)
    assert counts_of(delta(reasoning_content="hm"), *words(2), usage).completion == 32
    assert counts_of(*words(2), usage).completion == 2  # it never came: not of this stream


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens": 20, "completion_tokens": 8},
        {"prompt_tokens": 20.0, "completion_tokens": 8.0},
        {"prompt_tokens": "20", "completion_tokens": "8"},
        {"input_tokens": 20, "output_tokens": 8},
        {"inputTokens": 20, "outputTokens": 8, "totalTokens": 28},
        {"promptTokenCount": 20, "candidatesTokenCount": 8},
        {"prompt_eval_count": 20, "eval_count": 8},
    ],
)
def test_counts_are_read_under_their_names_and_types(fields: Json) -> None:
    assert counts_of(*words(8), counted(**fields)) == (20, 8, None)
    choice = {"index": 0, "delta": {}, "usage": fields}
    assert counts_of(*words(8), {"choices": [choice]}) == (20, 8, None)
    assert counts_of(*words(8), {"choices": [{"delta": {}}], "x_groq": {"usage": fields}}) == (20, 8, None)
    assert counts_of(*words(8), {"x_groq": {"usage": fields}}) == (20, 8, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens_details": {"cached_tokens": 16}},
        {"input_tokens_details": {"cached_tokens": 16}},
        {"cached_tokens": 16},
        {"prompt_cache_hit_tokens": 16, "prompt_cache_miss_tokens": 4},
        {"cache_read_input_tokens": 16},
        {"num_cached_tokens": 16},
    ],
)
def test_cached_tokens_are_read_under_their_names(fields: Json) -> None:
    assert counts_of(*words(8), counted(prompt_tokens=20, completion_tokens=8, **fields)) == (20, 8, 16)


def test_cached_tokens_of_llama_cpp_stand_in_its_timings() -> None:
    last = {**usage(20, 8), "timings": {"cache_n": 16, "prompt_n": 4}}
    assert counts_of(*words(8), last) == (20, 8, 16)
    assert counts_of(*words(8), {"choices": [{"delta": {}}], "timings": {"cache_n": 16}}, usage(20, 8)) == (20, 8, 16)


# ------------------------------------------------------------------ what the text belies


def test_zeros_beside_text_are_no_counts() -> None:
    assert counts_of(*words(8), usage(0, 0)) == (None, None, None)
    assert counts_of(delta(reasoning_content="r"), usage(5, 0)) == (5, None, None)
    assert counts_of(delta(tool_calls=[{"function": {"name": "f"}}]), usage(5, 0)) == (5, None, None)


def test_an_empty_reply_may_have_no_tokens() -> None:
    assert counts_of(delta(finish="stop"), usage(5, 0)) == (5, 0, None)


def test_of_several_usages_the_last_that_the_text_does_not_belie_holds() -> None:
    running = [{**delta("w "), "usage": {"prompt_tokens": 20, "completion_tokens": n}} for n in range(1, 9)]
    assert counts_of(*running, usage(20, 8)).completion == 8
    assert counts_of(*running, usage(20, 0)).completion == 8
    assert counts_of(usage(20, 500), *words(8), usage(20, 8)).completion == 8
    assert counts_of(usage(20, 0), *words(8), usage(20, 8)).completion == 8


def test_a_count_that_starts_anew_with_every_chunk_is_not_that_of_the_reply() -> None:
    each = [{**delta("w"), "usage": {"prompt_tokens": 20, "completion_tokens": 1}} for _ in range(8)]
    assert counts_of(*each) == (20, None, None)
    assert counts_of(*each, usage(20, 0)) == (20, None, None)


def test_fewer_tokens_than_chunks_are_believed_only_of_text_that_they_can_hold() -> None:
    assert counts_of(*words(40, "ab"), usage(20, 10)).completion == 10  # a proxy that sends token after token in pieces
    assert counts_of(*words(40, "a word or two"), usage(20, 1)).completion is None


async def test_usage_that_is_believed_is_the_one_that_is_stored() -> None:
    body = b"".join(map(event, words(2))) + event(usage(20, 2)) + event(usage(20, 0)) + event("[DONE]")
    got = await try_once(stream(body))
    assert got.reply is not None
    assert got.reply.usage == {"prompt_tokens": 20, "completion_tokens": 2}
    assert (got.marks.prompt_tokens, got.marks.completion_tokens) == (20, 2)
