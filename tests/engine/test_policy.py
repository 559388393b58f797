"""Which attempts earn another try, when it comes, and when it is enough."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.contract.settings import Retry
from kvt_async.engine.reply.retry_headers import Hints, parse_duration, read_hints
from kvt_async.engine.send.policy import Decision, backoff_s, decide, is_retryable, schedule_s
from kvt_async.engine.send.tried import Tried
from kvt_async.records import Attempt, Marks

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RETRY = Retry()


def tried(
    kind: ErrorType | None, status: int | None = None, hints: Hints | None = None, code: int | None = None
) -> Tried:
    attempt = Attempt(
        attempt_idx=0,
        series_idx=0,
        started_at="2026-01-02T03:04:05.000Z",
        endpoint="http://127.0.0.1/v1",
        http_status=status,
        end_state=EndState.HTTP_ERROR,
        error_type=kind,
        error_message=None,
        partial_text=None,
        retry_after_s=None,
        latency_s=0.0,
        marks=Marks(),
    )
    return Tried(attempt, hints or Hints(), code=code)


def decided(what: Tried, n_tries: int = 1, waited_s: float = 0.0, **retry: Any) -> Decision:
    return decide(what, Retry(**retry), n_tries, waited_s, random.Random(1))


# ------------------------------------------------------------------ which


@pytest.mark.parametrize(
    "kind",
    [
        ErrorType.CONNECT_TIMEOUT,
        ErrorType.TTFB_TIMEOUT,
        ErrorType.IDLE_TIMEOUT,
        ErrorType.TOTAL_TIMEOUT,
        ErrorType.CONNECTION,
        ErrorType.STREAM_CUT,
        ErrorType.STREAM_ERROR,
        ErrorType.MALFORMED,
    ],
)
def test_timeouts_broken_connections_and_broken_replies_are_tried_again(kind: ErrorType) -> None:
    assert is_retryable(tried(kind))


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504, 508, 529])
def test_statuses_that_may_pass_are_tried_again(status: int) -> None:
    assert is_retryable(tried(ErrorType.HTTP, status))


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 405, 413, 422, 501, 505, 507, 511])
def test_other_statuses_are_not(status: int) -> None:
    assert decided(tried(ErrorType.HTTP, status)).reason == "not_retryable"


def test_a_429_is_tried_again_unless_the_quota_is_gone() -> None:
    assert is_retryable(tried(ErrorType.RATE_LIMITED, 429))
    assert not is_retryable(tried(ErrorType.QUOTA, 429))


@pytest.mark.parametrize("kind", [ErrorType.QUOTA, ErrorType.CONTEXT_OVERFLOW, ErrorType.TLS])
def test_what_waiting_cannot_help_is_never_tried_again_whatever_the_server_says(kind: ErrorType) -> None:
    assert not is_retryable(tried(kind, 400, Hints(should_retry=True)))


def test_a_servers_word_on_retrying_is_obeyed() -> None:
    assert not is_retryable(tried(ErrorType.HTTP, 503, Hints(should_retry=False)))
    assert is_retryable(tried(ErrorType.HTTP, 400, Hints(should_retry=True)))


def test_an_error_inside_a_stream_counts_as_the_status_it_claims() -> None:
    assert is_retryable(tried(ErrorType.STREAM_ERROR, 200, code=503))
    assert not is_retryable(tried(ErrorType.STREAM_ERROR, 200, code=400))


def test_success_needs_no_other_try() -> None:
    assert decided(tried(None, 200)) == Decision()


# ------------------------------------------------------------------ when


@given(n_tries=st.integers(1, 500), seed=st.integers())
def test_waits_are_exponential_with_full_jitter_and_bounded(n_tries: int, seed: int) -> None:
    wait = backoff_s(RETRY, n_tries, random.Random(seed))
    assert 0 <= wait <= min(60.0, 0.5 * 2.0 ** min(n_tries - 1, 30))


def test_jitter_uses_the_whole_range() -> None:
    rng = random.Random(1)
    waits = sorted(backoff_s(RETRY, 4, rng) for _ in range(1000))
    assert waits[0] < 0.1
    assert waits[-1] > 3.9
    assert 1.8 < sum(waits) / 1000 < 2.2


def test_the_longest_schedule_is_known() -> None:
    assert schedule_s(RETRY) == 0.5 + 1 + 2 + 4
    assert schedule_s(Retry(max_attempts=1)) == 0
    assert schedule_s(Retry(max_attempts=100)) == 300  # bounded by max_elapsed_s


def test_retry_after_is_waited_for_and_not_much_longer() -> None:
    for seed in range(50):
        got = decide(tried(ErrorType.RATE_LIMITED, 429, Hints(20.0)), RETRY, 1, 0.0, random.Random(seed))
        assert got.wait_s is not None
        assert 20.0 <= got.wait_s <= 20.5


def test_a_retry_after_longer_than_our_longest_backoff_is_honoured_within_the_deadline() -> None:
    got = decided(tried(ErrorType.RATE_LIMITED, 429, Hints(200.0)))
    assert got.wait_s is not None
    assert got.wait_s >= 200


def test_a_retry_after_beyond_the_deadline_ends_the_request() -> None:
    assert decided(tried(ErrorType.RATE_LIMITED, 429, Hints(301.0))).reason == "retry_after_too_long"
    assert decided(tried(ErrorType.RATE_LIMITED, 429, Hints(20.0)), waited_s=285).reason == "retry_after_too_long"


def test_a_rate_limits_reset_is_a_hint_and_bounded() -> None:
    got = decided(tried(ErrorType.RATE_LIMITED, 429, Hints(reset_s=30.0)))
    assert got.wait_s is not None
    assert got.wait_s >= 30
    got = decided(tried(ErrorType.RATE_LIMITED, 429, Hints(reset_s=3000.0)))
    assert got.wait_s == 60
    got = decided(tried(ErrorType.HTTP, 500, Hints(reset_s=30.0)))
    assert got.wait_s is not None
    assert got.wait_s < 1


def test_tries_are_bounded_in_number_and_in_waiting() -> None:
    assert decided(tried(ErrorType.HTTP, 500), n_tries=4).wait_s is not None
    assert decided(tried(ErrorType.HTTP, 500), n_tries=5).reason == "attempts_exhausted"
    assert decided(tried(ErrorType.HTTP, 500), waited_s=300).reason == "time_exhausted"


# ------------------------------------------------------------------ headers


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
        ({"retry-after": "2s"}, 2.0),
        ({"retry-after": "500ms"}, 0.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after": str(int(NOW.timestamp()) + 30)}, 30.0),
        ({"retry-after": str((int(NOW.timestamp()) + 30) * 1000)}, 30.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e12"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_in_seconds_milliseconds_and_dates(headers: dict[str, str], wait: float | None) -> None:
    assert read_hints(headers, NOW).retry_after_s == wait


def test_a_date_is_read_by_the_servers_own_clock() -> None:
    theirs = NOW + timedelta(hours=5)
    headers = {
        "retry-after": format_datetime(theirs + timedelta(seconds=10), usegmt=True),
        "date": format_datetime(theirs, usegmt=True),
    }
    assert read_hints(headers, NOW).retry_after_s == 10


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(
            ("2 seconds", 2),
            ("in 2 s", 2),
            ("1 minute", 60),
            ("1h 2m", 3720),
            ("1500 ms", 1.5),
            ("2 min and 3 sec", 123),
        ),
        *(
            ("PT2.5S", 2.5),
            ("pt1m", 60),
            ("P1DT1H", 90000),
            ('"2"', 2),
            ("PT", None),
            ("2 blocks", None),
            ("1 2", None),
        ),
        ("6m0s", 360),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("1h2m3s", 3723),
        ("1d", 86400),
        ("7", 7),
        ("", None),
        ("x", None),
    ],
)
def test_durations_as_servers_write_them(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "500",
            },
            1,
        ),
        ({"x-ratelimit-reset-tokens": "-1"}, None),
        ({"x-ratelimit-reset-tokens": "0"}, None),
        ({"x-ratelimit-reset-tokens": "inf"}, None),
        ({"x-ratelimit-reset": str(int(NOW.timestamp()) + 30)}, 30),
        ({"x-ratelimit-reset": str((int(NOW.timestamp()) + 30) * 1000)}, 30),
        ({"x-ratelimit-reset": str((int(NOW.timestamp()) + 30) * 10**9)}, 30),
        ({"ratelimit-reset": "30"}, 30),
        ({"ratelimit": "limit=10, remaining=0, reset=30"}, 30),
        ({"ratelimit": '"default";r=0;t=30'}, 30),
        ({"ratelimit": '"default";r=5;t=30'}, None),
        ({"x-ratelimit-reset-after": "30"}, 30),
        ({"x-ratelimit-reset": str((int(NOW.timestamp()) - 30) * 1000)}, None),
        ({"anthropic-ratelimit-tokens-reset": (NOW + timedelta(seconds=40)).isoformat()}, 40),
        ({"x-ratelimit-limit-tokens": "100"}, None),
    ],
)
def test_rate_limit_resets_are_read_and_checked_for_sense(headers: dict[str, str], wait: float | None) -> None:
    assert read_hints(headers, NOW).reset_s == wait


@pytest.mark.parametrize(
    ("body", "wait"),
    [
        ([{"error": {"code": 429, "details": [{"@type": "google.rpc.RetryInfo", "retryDelay": "2s"}]}}], 2.0),
        ({"error": {"details": [{"retryDelay": {"seconds": "3", "nanos": 5}}]}}, 3.0),
        ({"error": {"retry_after": 2}}, 2.0),
        ({"retry_after_ms": 500}, 0.5),
        ({"retry_after": "2 seconds"}, 2.0),
        ({"retryDelay": "PT2S"}, 2.0),
        ({"retry_at": (NOW + timedelta(seconds=40)).isoformat()}, 40.0),
        ({"error": {"resets_at": int(NOW.timestamp()) + 30}}, 30.0),
        ({"backoff_seconds": 2}, 2.0),
        ({"message": "try again in 2 minutes and 3 seconds"}, 123.0),
        ({"error": {"reset_in_seconds": 4}}, 4.0),
        ({"error": {"reset": (int(NOW.timestamp()) + 30) * 1000}}, 30.0),
        ({"error": {"metadata": {"retryAfterSeconds": "7"}}}, 7.0),
        ({"error": {"message": "Rate limit reached. Please try again in 6m0s. Visit us."}}, 360.0),
        ({"error": {"message": "Please try again in 340ms."}}, 0.34),
        ({"error": {"message": "Please retry after 6 seconds."}}, 6.0),
        ({"message": "Wait for 1 minute 30 seconds, then retry"}, 90.0),
        ("please retry in 2.5s", 2.5),
        ({"error": {"message": "retry later"}}, None),
        ({"error": {"message": "try again in 3 blocks"}}, None),
        ({"retry_after": -1}, None),
        ({"retry_after": True}, None),
        ({"retry_after": 1e12}, None),
        ({"n": list(range(10_000))}, None),
    ],
)
def test_a_wait_in_an_errors_body_is_heard(body: Any, wait: float | None) -> None:
    assert read_hints({}, NOW, body=body).retry_after_s == (None if wait is None else pytest.approx(wait))
    assert read_hints({"retry-after": "9"}, NOW, body=body).retry_after_s == 9


def test_headers_that_a_gateway_passes_on_in_its_error_are_heard() -> None:
    reset_ms = str((int(NOW.timestamp()) + 30) * 1000)
    body = {"error": {"metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset_ms}}}}
    assert read_hints({}, NOW, body=body).reset_s == 30
    assert read_hints({"x-ratelimit-reset": "5"}, NOW, body=body).reset_s == 5


def test_x_should_retry_is_read() -> None:
    assert read_hints({"x-should-retry": "true"}).should_retry is True
    assert read_hints({"x-should-retry": "false"}).should_retry is False
    assert read_hints({"x-should-retry": "perhaps"}).should_retry is None
