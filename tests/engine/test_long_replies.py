"""Replies that are read while they still come: over the wire they are what any reply is, whole, cut or broken off."""

import asyncio

import pytest

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.contract.formulas.chunk_encoding import decode_chunks
from tests.engine.sending import Recorder, against, send_one
from tests.servers.fault_server import Seen, Wire, chunk, delta, event, head, raw, stream, usage
from tests.worlds import until

pytestmark = pytest.mark.usefixtures("every_transport")
N = 3_000
WORDS = [f" word{n % 97}" for n in range(N)]
WIDE = ["\u4f60", "\U0001f600"] * (N // 2)


def body(texts: list[str], *, field: str = "content", finish: str = "length") -> bytes:
    parts = [event(delta(**{field: text})) for text in texts]
    return b"".join([*parts, event(delta(finish=finish)), event(usage(completion=len(texts))), event("[DONE]")])


@pytest.mark.parametrize(
    "texts", [WORDS, ["!"] * N, ["\u4f60", "\U0001f600"] * (N // 2)], ids=["words", "same", "wide"]
)
async def test_a_long_answer_that_its_limit_cuts_is_an_answer_and_is_not_tried_again(texts: list[str]) -> None:
    limits = {"retry": {"max_attempts": 3, "initial_s": 0.01}}
    async with against(stream(body(texts), every=4_000), limits=limits) as (server, sender):
        outcome = await send_one(sender, server, max_tokens=N)
        assert sender._open.client._long._n == 1  # it was read while it came
        assert len(server.seen) == 1
    assert outcome.reply is not None
    assert (outcome.reply.text, outcome.reply.finish_reason) == ("".join(texts), "length")
    assert outcome.last is not None
    marks = outcome.last.marks
    assert (marks.n_text_chunks, marks.completion_tokens, marks.n_events) == (N, N, N + 3)
    assert marks.chunks is not None
    assert [chars for _, chars in decode_chunks(marks.chunks)] == [len(text) for text in texts]


async def test_reasoning_that_its_limit_cuts_leaves_an_empty_answer_and_itself() -> None:
    async with against(stream(body(WORDS, field="reasoning_content"), every=4_000)) as (server, sender):
        outcome = await send_one(sender, server, max_tokens=N)
    assert outcome.reply is not None
    assert (outcome.reply.text, outcome.reply.reasoning) == ("", "".join(WORDS))
    assert outcome.reply.finish_reason == "length"


async def test_a_long_answer_that_breaks_off_keeps_all_its_text() -> None:
    data = body(WORDS)
    kept = data[: data.rindex(b" word")]
    async with against(raw(head(chunked=True) + chunk(kept), every=4_000)) as (server, sender):
        outcome = await send_one(sender, server)
    assert outcome.last is not None
    assert (outcome.last.end_state, outcome.last.error_type) == (EndState.CUT, ErrorType.STREAM_CUT)
    assert outcome.last.partial_text == "".join(WORDS[:-1])
    assert "word" in (outcome.last.error_message or "")  # the last bytes are the evidence


async def test_a_cancelled_long_answer_keeps_what_had_come() -> None:
    async def stops(wire: Wire, request: Seen) -> None:
        await wire.send(head(chunked=True) + chunk(body(WORDS)[:200_000]))
        await asyncio.sleep(60)

    async with against(stops) as (server, sender):
        recorder = Recorder()
        task = asyncio.create_task(send_one(sender, server, recorder))
        await until(lambda: sender._open.client._long._n)
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (cancelled,) = recorder.attempts
    assert cancelled.partial_text is not None
    assert "".join(WORDS).startswith(cancelled.partial_text)
    assert len(cancelled.partial_text) > 10_000
