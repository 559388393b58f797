"""What a person watching a bench sees: one line a stage, live on a terminal, every few seconds when piped."""

import time
from collections.abc import Callable
from typing import Any

from kvt_async.bench.sending_window import Tally
from kvt_async.bench.stage import Left, Stage
from kvt_async.contract.live_figures import LiveFigures, ServerNow
from kvt_async.records import Json, Outcome
from kvt_async.session.live_screen import keep_showing
from kvt_async.session.progress import AttemptCounts


class StageProgress(AttemptCounts):
    """Counts what a window tells it."""

    def __init__(self, stage: Stage, left: Left | None, tally: Tally, log: Callable[..., None]) -> None:
        """`left`: what of the stage this window sends; None: all of it."""
        super().__init__(log)
        self.name, self._run_id, self._tally = stage.name, stage.run.run_id, tally
        measured, _ = stage.numbers(left)
        n = stage.n_warm_up + len(measured)
        self._n = None if stage.n_measured is None else n
        self._lasts_s = stage.seconds_left(left)  # from the first measured request on; None: it ends with its requests
        if stage.load.is_open and n and stage.load.of == "requests":  # later turns are due when others have ended
            self._lasts_s = stage.lasts_s(n, left)
        self._began = time.monotonic()
        self.server_now: Callable[[], ServerNow | None] = lambda: None  # what its metrics page last said
        self.done = self.failed = 0
        self._rates()

    def saved(self, outcome: Outcome) -> None:
        self.done += outcome.reply is not None
        self.failed += (outcome.reply is None and outcome.give_up is not None) + len(outcome.settles)

    def live(self) -> LiveFigures:
        """Everything shown, as numbers."""
        tally = self._tally
        sent, done, tokens = self._rates()
        return LiveFigures(
            name=self.name,
            run_id=self._run_id,
            planned=self._n,
            sent=tally.n_sent,
            done=self.done,
            failed=self.failed,
            in_flight=tally.in_flight,
            sent_per_s=sent,
            done_per_s=done,
            output_tokens=self.output_tokens,
            output_tokens_per_s=tokens,
            ttft_p50_ms=self.ttft_ms(0.5),
            ttft_p99_ms=self.ttft_ms(0.99),
            left_s=self._left_s(done),
            late=tally.n_late,
            held=tally.n_held,
            errors=dict(self.errors),
            server=self.server_now(),
        )

    def line(self) -> str:
        """What `live` says, in one line."""
        return self.live().line(str(self.client_health().get("verdict", "")))

    def client_health(self) -> Json:
        """Columns of client_health, so far; empty: nobody has said."""
        return self.health.row()

    def _rates(self) -> list[float]:
        return self.per_second(self._tally.n_sent, self.done + self.failed, self.output_tokens)

    def _left_s(self, done_per_s: float) -> float | None:
        """Until the schedule or the duration is over; else, until all have ended at today's rate."""
        if self._lasts_s is not None:
            return max(self._began + self._lasts_s - time.monotonic(), 0.0)
        if self._n is None or done_per_s <= 0:
            return None
        return (self._n - self.done - self.failed) / done_per_s

    async def show(self, quiet: bool) -> None:
        """Draw until cancelled."""
        await keep_showing(self.line, self._drawing, quiet=quiet)

    def _drawing(self) -> Any:
        from rich.text import Text

        return Text(self.line(), no_wrap=True, overflow="ellipsis")
