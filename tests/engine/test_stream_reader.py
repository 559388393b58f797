"""A stream's events are read many at a time; what they say and when is what one at a time would give."""

import itertools
import os
import random

from kvt_async.engine.reply.payload import UnreadableError
from kvt_async.engine.reply.stream_reader import Reading
from kvt_async.engine.reply.token_counts import token_counts
from kvt_async.engine.transport.exchange import Exchange
from tests.servers.fault_server import delta, event, usage

PLAIN = [event(delta(text)) for text in ("a", 'q"\\', "\u2028", "é", " 😀", "\n", '","content":"x', "long " * 40)]
ODD = [
    event(delta("", role="assistant")),
    event(delta("")),
    event(delta(reasoning_content="hm")),
    event(delta("b", logprobs=None)),
    event(delta(finish="stop")),
    event(delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}])),
    event(delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}])),
    event(delta(tool_calls=[{"index": 0, "function": {"arguments": " 1}"}}], logprobs=None)),
    event(delta("c", tool_calls=[{"function": {"name": "g", "arguments": {"b": [2]}}}, {"index": 1, "id": "b"}])),
    event(delta(function_call={"name": "f", "arguments": '{"a": 1}'})),
    event(usage()),
    event("{}"),
    event("[DONE]"),
    event("{not json"),
    event(b'{"choices":[{"index":0,"delta":{"content":"\\ud83d"},"finish_reason":null}]}'),
    event(""),
    event(" [DONE]"),
    b": ping\n\n",
    b"\xef\xbb\xbf" + event(delta("mark")),  # dropped at the start of a stream alone: elsewhere an unknown field
    b"\n",
    b"id: 7\n" + event(delta("id")),
    b"event: error\ndata: {}\n\n",
    event(delta("cr"), eol=b"\r\n"),
    b"data:" + event(delta("nospace"))[6:],
    b"data: {\ndata: }\n\n",
    b"data: [DONE]",
    event(delta("cut"))[:40],
]

GROWING = [event(delta("".join(f" word{k}" for k in range(n)))) for n in range(1, 20)]  # each with all before it
USAGES = [event(delta("a") | {"usage": {"prompt_tokens": 7, "completion_tokens": n}}) for n in (0, 1, 2, 3, 40)]
MESSAGES = [event({"choices": [{"index": 0, "message": {"content": text}}]}) for text in ("a", "aa", "b", "aab")]


def exchange_of(body: bytes, cuts: list[int]) -> Exchange:
    exchange, edges = Exchange(), [0, *sorted(cuts), len(body)]
    exchange.marks.start_ns = 0
    for nth, (start, end) in enumerate(itertools.pairwise(edges)):
        if end > start:
            exchange.received((nth + 1) * 1_000_000, end - start)
            exchange.body(exchange.arrived_ns, body[start:end])
    exchange.complete = True
    return exchange


def said(exchange: Exchange, *, one_by_one: bool) -> tuple[object, ...]:
    """Everything a reading finds: texts, instants, and the marks made of them."""
    reading, unreadable = Reading(exchange), ""
    if one_by_one:
        try:
            list(reading.decode())
        except UnreadableError as error:
            unreadable = str(error)
    else:
        while reading.goes_on():
            pass
        unreadable = str(reading.unreadable or "")
    reading.fill(store_chunks=True)
    transcript, marks = reading.transcript, exchange.marks
    named = {name: getattr(transcript, name) for name in transcript.__struct_fields__ if name != "tools"}
    broke = bool(unreadable)
    return (
        named,
        transcript.tool_calls,
        unreadable,
        marks.chunks,
        marks.done_ns,
        None if broke else (marks.n_events, marks.first_text_coalesced),
    )


def test_a_seeded_fuzzer_finds_no_difference_between_many_at_a_time_and_one_by_one() -> None:
    rng = random.Random(1337)
    for _ in range(min(100_000, int(os.environ.get("KVT_FUZZ_CASES", "600")))):
        parts: list[bytes] = []
        while len(parts) < rng.randrange(1, 40):
            odd = rng.random() < 0.15
            parts += [rng.choice(ODD)] if odd else rng.choices(PLAIN, k=rng.randrange(1, 12))
        body = b"".join(parts)
        cuts = [rng.randrange(len(body)) for _ in range(rng.choice((0, 0, 3, 60)))]
        many, one = exchange_of(body, cuts), exchange_of(body, cuts)
        assert said(many, one_by_one=False) == said(one, one_by_one=True), body


def everything(exchange: Exchange, reading: Reading) -> tuple[object, ...]:
    """What is stored of a reply that was read, and how it ended."""
    reading.fill(store_chunks=True)
    transcript, marks = reading.transcript, exchange.marks
    broke = str(reading.unreadable or "")
    counts = token_counts(transcript)
    return (
        *(
            transcript.text,
            transcript.reasoning_text,
            transcript.tool_calls,
            transcript.finish_reason,
            transcript.ended,
        ),
        *(transcript.usage, counts, transcript.n_chunks, transcript.n_chars, transcript.n_choices, transcript.error),
        *(transcript.complaint, transcript.timings, broke),
        {name: None if broke and name == "n_events" else getattr(marks, name) for name in marks.__struct_fields__},
    )


def test_a_reply_read_in_stretches_while_it_runs_is_the_reply_read_at_its_end() -> None:
    rng = random.Random(31337)
    for _ in range(min(100_000, int(os.environ.get("KVT_FUZZ_CASES", "600")))):
        same = rng.choice(PLAIN)
        kinds = rng.choice((PLAIN, PLAIN + ODD, GROWING, [same] * 4 + [rng.choice(PLAIN)], USAGES, MESSAGES))
        parts = [event(delta("", role="assistant"))] if rng.random() < 0.5 else []
        while len(parts) < rng.randrange(1, 60):
            parts += kinds if kinds is GROWING else rng.choices(kinds, k=rng.randrange(1, 12))
        parts += rng.choices(ODD, k=rng.randrange(3))
        body = b"".join(parts)
        if rng.random() < 0.1:
            body = body.replace(b"\n\n", b"\r\n\r\n")
        cuts = [rng.randrange(len(body)) for _ in range(rng.choice((3, 60, 200)))]
        whole, running = exchange_of(body, cuts), exchange_of(b"", [])
        running.complete = False
        late = Reading(whole)
        while late.goes_on():
            pass
        early, likely = Reading(running), rng.choice((0.05, 0.5, 1.0))
        for at_ns, data in zip(whole.arrivals, whole.pieces, strict=True):
            running.received(at_ns, len(data))
            running.body(at_ns, data)
            if rng.random() < likely:
                early.reads_on()
        running.complete = True
        early.last_stretch()
        while early.goes_on():
            pass
        assert everything(running, early) == everything(whole, late), (body, cuts)


def test_a_stream_that_is_read_while_it_runs_keeps_a_tenth_of_its_bytes() -> None:
    exchange = exchange_of(b"", [])
    reading = Reading(exchange)
    for nth in range(20_000):
        data = event(delta(f" word{nth % 7}", logprobs=None))
        exchange.received(nth * 1_000_000, len(data))
        exchange.body(nth * 1_000_000, data)
        if nth % 500 == 499:
            while reading.reads_on():
                pass
    transcript = reading.transcript
    assert (exchange.pieces, transcript.content, transcript.chunk_ns) == ([], [], [])
    assert transcript.n_chunks == 20_000
    assert transcript.packed is not None
    kept = len(transcript.packed.encoded()) + len(transcript.text) + len(exchange.opening) + len(exchange.closing)
    assert kept < exchange.body_bytes / 10


def test_a_long_reply_is_read_whole() -> None:
    texts = [f" word{n}" for n in range(20_000)]
    body = b"".join(event(delta(text)) for text in texts) + event(delta(finish="stop")) + event("[DONE]")
    exchange = exchange_of(body, list(range(0, len(body), 65_536)))
    named = said(exchange, one_by_one=False)[0]
    assert isinstance(named, dict)
    assert named["content"] == texts
    assert exchange.marks.n_text_chunks == len(texts)


def test_a_call_of_many_pieces_is_read_whole() -> None:
    """Beyond SHORT_BYTES, so that neither the reader of short replies nor that of one shape has all of it."""
    text = '{"a": "' + "word " * 400 + '"}'
    parts = [event(delta(tool_calls=[{"index": 0, "function": {"arguments": part}}])) for part in text]
    first = event(delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]))
    body = b"".join([*PLAIN, first, *parts, event(delta(finish="tool_calls")), event("[DONE]")])
    for one_by_one in (False, True):
        _, calls, unreadable, *_ = said(exchange_of(body, [len(body) // 2]), one_by_one=one_by_one)
        assert (calls, unreadable) == ([{"name": "f", "arguments": text, "id": "a"}], "")
