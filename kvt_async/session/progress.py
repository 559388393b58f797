"""What a person watching sees: a live table on a terminal, plain lines when piped, nothing when quiet.

Counts rise only when an outcome is committed.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from kvt_async.contract.live_figures import LiveFigures, span
from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.records import Attempt, Json, Outcome, Request
from kvt_async.session.client_health import Health
from kvt_async.session.live_screen import keep_showing
from kvt_async.session.session import ServerSession

WINDOW_S = 15.0
FEWEST_TTFTS = 20  # where the last seconds brought fewer, older ones count too


class Watcher(Protocol):
    """Told what happened, on the event loop; must return at once."""

    def attempted(self, request: Request, attempt: Attempt) -> None: ...
    def saved(self, outcome: Outcome) -> None: ...


class AttemptCounts:
    """What attempts have brought so far, and how much of it a second lately; failed ones are logged."""

    def __init__(self, log: Callable[..., None]) -> None:
        self.health = Health()
        self.errors: Counter[str] = Counter()
        self.output_tokens = 0
        self._log = log
        self._recent: deque[tuple[float, ...]] = deque()  # instants, and the counts at them
        self._ttft_ms: deque[tuple[float, float]] = deque(maxlen=4096)  # instants, and what came then

    def attempted(self, request: Request, attempt: Attempt) -> None:
        if (ttft_ms := self.health.saw(attempt)) is not None:
            self._ttft_ms.append((time.monotonic(), ttft_ms))
        if attempt.error_type is not None:
            self.errors[str(attempt.error_type)] += 1
            self._log(
                "attempt_failed",
                request_id=request.request_id,
                attempt_idx=attempt.attempt_idx,
                endpoint=attempt.endpoint,
                error=str(attempt.error_type),
                http_status=attempt.http_status,
                message=attempt.error_message,
            )
        elif attempt.marks.completion_tokens is not None:
            self.output_tokens += attempt.marks.completion_tokens
        else:
            self.output_tokens += attempt.marks.n_text_chunks or 0

    def per_second(self, *counts: int) -> list[float]:
        """By how much each count rose a second over the last WINDOW_S. Every call is given the same counts."""
        now = (time.monotonic(), *counts)
        self._recent.append(now)
        while len(self._recent) > 2 and now[0] - self._recent[0][0] > WINDOW_S:
            self._recent.popleft()
        then = self._recent[0]
        span = max(now[0] - then[0], 1e-9)
        return [(count - before) / span for count, before in zip(now[1:], then[1:], strict=True)]

    def ttft_ms(self, q: float) -> float | None:
        """A quantile of the times to first token of the last WINDOW_S; None: there is none."""
        now = time.monotonic()
        while len(self._ttft_ms) > FEWEST_TTFTS and now - self._ttft_ms[0][0] > WINDOW_S:
            self._ttft_ms.popleft()
        ttft = sorted(ms for _, ms in self._ttft_ms)
        return ttft[int(len(ttft) * q)] if ttft else None

    def heard(self, ttft_ms: Iterable[float]) -> None:
        """Take the newest times to first token of a sender process."""
        newest = list(ttft_ms)
        self.health.ttft_ms.extend(newest)
        now = time.monotonic()
        self._ttft_ms.extend((now, ms) for ms in newest)


class Progress(AttemptCounts):
    """Counts what the pipeline tells it, per level. `totals` are requests of this session, by level."""

    def __init__(self, server: ServerSession, totals: Sequence[int]) -> None:
        super().__init__(server.log)
        self.levels, self.totals, self._sender = server.levels, totals, server.sender
        self._level_of = {run.run_id: n for n, run in enumerate(server.runs)}
        self.done, self.failed = [0] * len(totals), [0] * len(totals)
        self.retries = 0
        self.failures: Counter[str] = Counter()
        self._began = time.monotonic()
        self.per_second(0, 0, 0)

    def saved(self, outcome: Outcome) -> None:
        request, last = outcome.request, outcome.last
        level = self._level_of[request.run_id]
        if outcome.settles:
            self.settled(outcome.settles)
        if last is not None:
            self.retries += last.attempt_idx - request.attempts_before
            if last.reply is not None:
                self.done[level] += 1
                return
        if outcome.give_up is not None:
            self._gave_up(outcome, outcome.give_up)

    def settled(self, given_up: Iterable[Outcome]) -> None:
        """Count requests whose end was open, and is known now."""
        for outcome in given_up:
            self._gave_up(outcome, outcome.give_up or "not_retryable")

    def _gave_up(self, outcome: Outcome, reason: str) -> None:
        request, last = outcome.request, outcome.last
        self.failed[self._level_of[request.run_id]] += 1
        self._log("gave_up", request_id=request.request_id, reason=reason)
        self.failures[str(last.error_type) if last and last.error_type else reason] += 1

    @property
    def in_flight(self) -> int:
        return self._sender.in_flight

    def client_health(self) -> Json:
        """Columns of client_health, so far."""
        return self.health.row()

    def figures(self) -> Json:
        """Everything shown, as numbers."""
        ended = sum(self.done) + sum(self.failed)
        sent, rate, tokens = self.per_second(ended + self.retries + self.in_flight, ended, self.output_tokens)
        left, client = sum(self.totals) - ended, self.client_health()
        return {
            "done": sum(self.done),
            "failed": sum(self.failed),
            "total": sum(self.totals),
            "in_flight": self.in_flight,
            "sent_per_s": sent,
            "requests_per_s": rate,
            "output_tokens_per_s": tokens,
            "ttft_p50_ms": self.ttft_ms(0.5),
            "ttft_p95_ms": self.ttft_ms(0.95),
            "retries": self.retries,
            "failures": dict(self.failures),
            "errors": dict(self.errors),
            "eta_s": left / rate if rate > 0 else None,
            "elapsed_s": time.monotonic() - self._began,
            "client": client["verdict"],
            "client_error_ms": client["error_bound_ms"],
        }

    def live(self) -> LiveFigures:
        """What is told to whoever watches from another process."""
        now = self.figures()
        return LiveFigures(
            name="sweep",
            run_id=None,
            planned=now["total"],
            sent=now["done"] + now["failed"] + now["retries"] + now["in_flight"],
            done=now["done"],
            failed=now["failed"],
            in_flight=now["in_flight"],
            sent_per_s=now["sent_per_s"],
            done_per_s=now["requests_per_s"],
            output_tokens=self.output_tokens,
            output_tokens_per_s=now["output_tokens_per_s"],
            ttft_p50_ms=now["ttft_p50_ms"],
            ttft_p99_ms=self.ttft_ms(0.99),
            left_s=now["eta_s"],
            retries=now["retries"],
            errors=now["errors"],
        )

    async def show(self, quiet: bool) -> None:
        """Draw until cancelled."""
        await keep_showing(self.line, self._table, quiet=quiet)

    def line(self) -> str:
        """One plain line: '120/900 done, 2 failed, 8 in flight, 14.2 req/s, ...'."""
        now = self.figures()
        parts = [f"{now['done']}/{now['total']} done", f"{now['in_flight']} in flight"]
        parts += [f"{now['requests_per_s']:.1f} req/s", f"{now['output_tokens_per_s']:.0f} tok/s"]
        if now["ttft_p50_ms"] is not None:
            error = "" if now["client"] == ClientVerdict.CLEAN else f" (±{now['client_error_ms']:.0f} ms)"
            parts.append(f"TTFT p50 {now['ttft_p50_ms']:.0f} ms, p95 {now['ttft_p95_ms']:.0f} ms{error}")
        if now["failed"]:
            reasons = ", ".join(f"{n} {name}" for name, n in self.failures.most_common())
            parts.append(f"{now['failed']} failed ({reasons})")
        if now["retries"]:
            parts.append(f"{now['retries']} retries")
        parts.append(f"ETA {span(now['eta_s'])}")
        return ", ".join(parts)

    def _table(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        for level, total, done, failed in zip(self.levels, self.totals, self.done, self.failed, strict=True):
            if total and (done + failed < total):
                note = f"{failed} failed" if failed else ""
                bar = ProgressBar(total=total, completed=done + failed, width=30)
                table.add_row(level.label, bar, f"{done + failed}/{total}", note)
                if table.row_count >= 12:
                    table.add_row("...", "", "", "")
                    break
        return Group(table, Text(self.line()))
