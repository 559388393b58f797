"""What a person watching a bench sees: one line a stage, live on a terminal, every few seconds when piped."""

from collections.abc import Callable
from typing import Any

from kvt_async.bench.sending_window import Tally
from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.records import Outcome
from kvt_async.session.live_screen import keep_showing
from kvt_async.session.progress import AttemptCounts


class StageProgress(AttemptCounts):
    """Counts what a window tells it."""

    def __init__(self, name: str, n: int | None, tally: Tally, log: Callable[..., None]) -> None:
        """`name`: the stage's; `n`: its requests, warm-up included; None: as many as go."""
        super().__init__(log)
        self._name, self._n, self._tally = name, n, tally
        self.done = self.failed = 0
        self.per_second(0, 0, 0)

    def saved(self, outcome: Outcome) -> None:
        self.done += outcome.reply is not None
        self.failed += (outcome.reply is None and outcome.give_up is not None) + len(outcome.settles)

    def line(self) -> str:
        """One plain line: 'rate 4/s: 34/110, 8 in flight, sent 4.0/s, done 3.9/s, 480 tok/s, TTFT p50 41 ms'."""
        tally, ended = self._tally, self.done + self.failed
        sent, done, tokens = self.per_second(tally.n_sent, ended, self.output_tokens)
        parts = [f"{self._name}: {ended}" + (f"/{self._n}" if self._n else ""), f"{tally.in_flight} in flight"]
        parts += [f"sent {sent:.1f}/s", f"done {done:.1f}/s", f"{tokens:.0f} tok/s"]
        p50, p95 = self.ttft_ms(0.5), self.ttft_ms(0.95)
        if p50 is not None:
            parts.append(f"TTFT p50 {p50:.0f} ms, p95 {p95:.0f} ms")
        if self.failed:
            parts.append(f"{self.failed} failed ({', '.join(f'{n} {e}' for e, n in self.errors.most_common(3))})")
        if tally.n_late:
            parts.append(f"{tally.n_late} sent late")
        if tally.n_held:
            parts.append(f"{tally.n_held} held by max_in_flight")
        if (verdict := self.client_verdict()) != ClientVerdict.CLEAN:
            parts.append(verdict)
        return ", ".join(parts)

    def client_verdict(self) -> str:
        return str(self.health.row()["verdict"])

    async def show(self, quiet: bool) -> None:
        """Draw until cancelled."""
        await keep_showing(self.line, self._drawing, quiet=quiet)

    def _drawing(self) -> Any:
        from rich.text import Text

        return Text(self.line())
