"""What a person watching a bench sees: one line a stage, live on a terminal, every few seconds when piped."""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from kvt_async.bench.sending_window import Tally
from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.records import Attempt, Outcome, Request
from kvt_async.session.client_health import Health
from kvt_async.session.live_screen import keep_showing

WINDOW_S = 10.0


class StageProgress:
    """Counts what a window tells it; `log` writes failures for machines."""

    def __init__(self, name: str, n: int | None, tally: Tally, health: Health, log: Callable[..., None]) -> None:
        """`name`: the stage's; `n`: its requests, warm-up included; None: as many as go."""
        self._name, self._n, self._tally, self._health, self._log = name, n, tally, health, log
        self.done = self.failed = self.output_tokens = 0
        self.errors: Counter[str] = Counter()
        self._began = time.monotonic()
        self._recent: deque[tuple[float, int, int, int]] = deque([(self._began, 0, 0, 0)])

    def attempted(self, request: Request, attempt: Attempt) -> None:
        self._health.saw(attempt)
        if attempt.error_type is None:
            self.output_tokens += attempt.marks.completion_tokens or attempt.marks.n_text_chunks or 0
            return
        self.errors[str(attempt.error_type)] += 1
        self._log(
            "attempt_failed",
            request_id=request.request_id,
            endpoint=attempt.endpoint,
            error=str(attempt.error_type),
            http_status=attempt.http_status,
            message=attempt.error_message,
        )

    def saved(self, outcome: Outcome) -> None:
        self.done += outcome.reply is not None
        self.failed += (outcome.reply is None and outcome.give_up is not None) + len(outcome.settles)

    def line(self) -> str:
        """'rate 4/s: 34/110, 8 in flight, sent 4.0/s, done 3.9/s, 480 tok/s, TTFT p50 41 ms'."""
        tally, ended = self._tally, self.done + self.failed
        now = (time.monotonic(), tally.n_sent, ended, self.output_tokens)
        self._recent.append(now)
        while len(self._recent) > 2 and now[0] - self._recent[0][0] > WINDOW_S:
            self._recent.popleft()
        then = self._recent[0]
        span = max(now[0] - then[0], 1e-9)
        sent, done, tokens = ((now[i] - then[i]) / span for i in (1, 2, 3))
        parts = [f"{self._name}: {ended}" + (f"/{self._n}" if self._n else ""), f"{tally.in_flight} in flight"]
        parts += [f"sent {sent:.1f}/s", f"done {done:.1f}/s", f"{tokens:.0f} tok/s"]
        if self._health.ttft_ms:
            ttft = sorted(self._health.ttft_ms)
            parts.append(f"TTFT p50 {ttft[len(ttft) // 2]:.0f} ms, p95 {ttft[int(len(ttft) * 0.95)]:.0f} ms")
        if self.failed:
            parts.append(f"{self.failed} failed ({', '.join(f'{n} {e}' for e, n in self.errors.most_common(3))})")
        if tally.n_late:
            parts.append(f"{tally.n_late} sent late")
        if tally.n_held:
            parts.append(f"{tally.n_held} held by max_in_flight")
        if (verdict := self._health.row()["verdict"]) != ClientVerdict.CLEAN:
            parts.append(verdict)
        return ", ".join(parts)

    async def show(self, quiet: bool) -> None:
        """Draw until cancelled."""
        await keep_showing(self.line, self._drawing, quiet=quiet)

    def _drawing(self) -> Any:
        from rich.text import Text

        return Text(self.line())
