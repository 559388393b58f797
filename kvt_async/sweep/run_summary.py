"""What a run says at its start and its end, as numbers and as sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from kvt_async.contract.labels import task_level
from kvt_async.contract.vocabulary import CanaryVerdict, EndReason
from kvt_async.records import Json, Run
from kvt_async.session.session import exit_code_of
from kvt_async.store.reader import Reader


@dataclass(slots=True)
class RunReport:
    """The answer of `run` and `sweep`. Counts are of the group's levels in this config, from the database."""

    exp_group_id: str
    generation: int
    db: str
    shard: str | None = None  # 'shard 2 of 4': the part that was sent; None: all
    session_id: str | None = None  # None: there was nothing to send
    reason: EndReason = EndReason.FINISHED
    planned: int = 0
    responses: int = 0
    failures: int = 0
    sent: int = 0  # requests settled by this session
    retries: int = 0
    elapsed_s: float = 0.0
    levels: list[Json] = field(default_factory=list)
    failures_by_type: dict[str, int] = field(default_factory=dict)
    client: Json | None = None
    read_short: str = ""  # what the server did not read of the prompts, as a sentence
    canary: CanaryVerdict | None = None  # None: not run
    notes: list[str] = field(default_factory=list)
    plan: Json | None = None  # of a dry run

    @property
    def pending(self) -> int:
        return self.planned - self.responses - self.failures

    @property
    def answered_levels(self) -> list[str]:
        """Labels of the levels that have answers."""
        return [task_level(level.get("task", ""), level["level"]) for level in self.levels if level["responses"]]

    @property
    def exit_code(self) -> int:
        return exit_code_of(self.reason)

    def as_json(self) -> Json:
        return {**asdict(self), "pending": self.pending, "exit_code": self.exit_code}

    def lines(self) -> list[str]:
        """The end of a run as sentences, for people."""
        name = f"{self.exp_group_id}, {self.shard}" if self.shard else self.exp_group_id
        out = [f"{name}: {self.responses} answered, {self.failures} failed, {self.pending} pending of {self.planned}"]
        if self.session_id is not None:
            rate = self.sent / self.elapsed_s if self.elapsed_s > 0 else 0.0
            out.append(
                f"  this session: {self.sent} requests in {self.elapsed_s:.1f} s ({rate:.1f}/s), {self.retries} retries"
            )
        if self.client is not None:
            out.append(
                f"  latencies: ±{self.client['error_bound_ms']:.1f} ms, the client's own error in 99% of instants "
                f"({self.client['signal']})"
            )
        out += [f"  failed: {n} x {name}" for name, n in self.failures_by_type.items()]
        if self.reason == EndReason.INTERRUPTED:
            out.append("interrupted: everything finished so far is committed; run the same command again to resume")
        elif self.reason == EndReason.SERVER:
            out.append("the server went away: nothing was given up; run the same command again once it is back")
        elif self.reason == EndReason.LOCAL:
            out.append("this machine could not send: nothing was given up; run the same command again once it can")
        elif self.reason == EndReason.REFUSED:
            out.append("the server refuses our key: nothing was given up; run the same command again with one it takes")
        elif self.read_short:
            out.append(
                "prompts were read shorter than sent, and the verdict will claim nothing of them: serve a "
                "window that holds the longest prompt, or lower prompt.max_context_tokens, under a new "
                "experiment.exp_group_id"
            )
        if self.failures and self.reason == EndReason.FAILURES:
            out.append("failures stand: they score 0; --retry-failed tries them again")
        return [*out, f"  {self.db}"]


def count(
    report: RunReport, reader: Reader, runs: Sequence[Run], planned: Mapping[str, int], samples: Mapping[str, int]
) -> None:
    """Fill in the counts from the database: of as many requests of each run as are `planned`, by run_id, and of so
    many `samples` of each example, by dataset."""
    report.levels.clear()
    for run in runs:
        counts = reader.counts(run.run_id, samples[run.dataset_id])
        n = max(planned[run.run_id], counts["responses"] + counts["failures"])  # a --limit plans fewer than are there
        task = {"task": run.task} if run.task else {}
        report.levels.append({**task, "level": run.level.label, "run_id": run.run_id, "planned": n, **counts})
    report.planned = sum(level["planned"] for level in report.levels)
    report.responses = sum(level["responses"] for level in report.levels)
    report.failures = sum(level["failures"] for level in report.levels)
    report.failures_by_type = {}
    if not report.failures:
        return
    marks = ",".join("?" * len(runs))
    report.failures_by_type = {
        row[0]: row[1]
        for row in reader.rows(
            f"SELECT ifnull(error_type, reason), count(*) FROM failures WHERE run_id IN ({marks}) GROUP BY 1 "
            "ORDER BY 2 DESC",
            *(run.run_id for run in runs),
        )
    }


def resume_lines(
    done: int, failed: int, todo: int, killed: Sequence[tuple[str, int]], *, retry_failed: bool
) -> list[str]:
    """What a resumed run skips, and what a kill may cost."""
    out = []
    if done or failed:
        again = "tried again" if retry_failed else "left as they are (--retry-failed tries them again)"
        tail = f", {failed} stand as failed and are {again}" if failed else ""
        out.append(f"resuming: {done} requests are answered and skipped{tail}; {todo} to send")
    if killed and todo:
        most = min(sum(n for _, n in killed), todo)
        names = ", ".join(name for name, _ in killed)
        out.append(f"killed before: session {names}; at most {most} requests in flight then are sent a second time")
    return out
