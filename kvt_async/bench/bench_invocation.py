"""One invocation of `kvt bench`, once its config has been checked: what is left, session, servers, stages, end."""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from kvt_async.bench import client_ceiling
from kvt_async.bench.bench_canary import questions
from kvt_async.bench.bench_evidence import LevelEvidence
from kvt_async.bench.conversations.conversation_workload import conversations_of
from kvt_async.bench.ladder import Done, Next, broken_rule, next_stage
from kvt_async.bench.load_sender import load_sender
from kvt_async.bench.messages import BenchReport, stage_line, stage_summary
from kvt_async.bench.readiness import add_workload, ready, workload_id
from kvt_async.bench.request_counts import needed
from kvt_async.bench.stage import Left, Stage, make_stage, plan_json, what_is_left
from kvt_async.bench.stage_figures import stage_figures
from kvt_async.bench.stage_run import run_stage
from kvt_async.bench.stage_throughput import stage_throughput
from kvt_async.bench.traces.trace_workload import paced
from kvt_async.bench.workload import Workload
from kvt_async.contract.formulas.open_loop_throughput import WHOLE
from kvt_async.contract.load import known_secrets
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json, Level, Run
from kvt_async.session import handshake
from kvt_async.session.canary import visit
from kvt_async.session.experiment_rows import add_generation, add_runs, make_run_id
from kvt_async.session.invocation import CommandOptions, Invocation
from kvt_async.session.launched_canary import Spread
from kvt_async.session.server_check import keep_snapshot, lacks
from kvt_async.session.servers import on_servers, watched
from kvt_async.session.session import ServerSession, Session, next_session, run_session
from kvt_async.store.columns import Row
from kvt_async.store.writer import Writer
from kvt_async.ways.registry import way_of

QUEUES = 1.5  # times the latency of a request alone: then requests wait for each other
SendStage = Callable[[Stage, Left | None, Sequence[Row], Json | None], Awaitable[Json]]
"""Sends what is left of a stage: `run_stage` says what is given and what comes back."""


@dataclass(frozen=True, slots=True)
class BenchOptions(CommandOptions):
    """Options of `kvt bench`."""

    guarded: bool = True  # False: the calibration itself
    within_s: float | None = None  # an automatic ladder begins no load that would end later; None: it has all the time


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bench will measure: a workload at levels, each under the loads of its ladder."""

    generation: int
    contract: Json
    workload: Workload
    levels: Sequence[Level]
    ceilings: Json | None  # of this client; None: not known
    processes: int = 1  # that send
    examples: str | None = None  # dataset whose answers are scored
    within_s: float | None = None  # see BenchOptions

    @property
    def examples_asked(self) -> int:
        """Prompts that a stage is to ask at least, since their answers are scored; 0: they aren't."""
        return self.workload.size or 0 if self.examples is not None else 0


class BenchInvocation:
    """`go` sends what is to be sent and says what came of it; the rest is what its session does on its servers."""

    def __init__(self, invocation: Invocation, plan: Plan) -> None:
        self.invocation, self.plan = invocation, plan
        self._began_s = time.monotonic()
        self.settings, self.reader, self.say = invocation.settings, invocation.reader, invocation.say
        self.report = BenchReport(invocation.group, str(invocation.paths.db), plan.generation)
        # A level has no row in `runs`, its stages have: these runs only say which levels a server serves.
        ids = [make_run_id(invocation.group, plan.generation, level) for level in plan.levels]
        runs = [Run(run_id, level, stored=False) for run_id, level in zip(ids, plan.levels, strict=True)]
        self._servers, self._spread = [runs], None
        if way_of(plan.levels[0].apply_via).canary == "across":
            self._servers = [[run] for run in runs]
            self._spread = Spread.over(invocation, plan.generation, plan.levels)
        if self._spread is not None:
            self._servers = self._spread.early(self._servers)
        self._dataset_id = plan.examples or workload_id(plan.workload.describe())

    async def go(self) -> BenchReport:
        """Send what is left. Raises KvtError for what stops it before its end; Ctrl-C and a dead server are reasons in
        the report."""
        ladders = [self._so_far(level) for level in self.plan.levels]
        skipped = sum(len(done) for done, _ in ladders)
        if skipped:
            self.say(f"resuming: {skipped} stages are complete and skipped")
        if all(step is None for _, step in ladders):
            self.say("nothing to send")
        else:
            settings = self.settings
            writer = Writer(self.invocation.paths.db, settings.db.flush_interval_s, secrets=known_secrets(settings))
            await run_session(self.invocation, writer, self.report, self._on_servers, order_seed=settings.bench.seed)
        self.report.read(self.reader)
        return self.report

    async def _on_servers(self, session: Session) -> EndReason:
        """The session's reason to end; the report has its counts by then, for they decide the exit code."""
        plan = self.plan
        await add_generation(session.store, self.reader, self.settings, plan.contract, plan.generation)
        reason = await on_servers(session, self._servers, self)
        self.report.read(self.reader)
        return reason

    def owes(self, runs: Sequence[Run]) -> bool:
        """Whether a stage of these levels is still to be sent, or the canary has to ask this server."""
        levels = [run.level for run in runs]
        asks = self._spread is not None and self._spread.needs(levels) and self._owes_a_canary()
        return asks or any(self._so_far(level)[1] is not None for level in levels)

    def sender(self, endpoints: Sequence[str]) -> Sender:
        return load_sender(self.settings, endpoints)

    async def restarted(self, session: Session, runs: Sequence[Run]) -> tuple[Session, Sequence[Run]]:
        """Go on in another session: what is left of a stage is a window of its own, and a stage has one window a
        session."""
        return await next_session(session, self.report, order_seed=self.settings.bench.seed), runs

    async def serve(self, server: ServerSession) -> EndReason:
        latency_s = await ready(server, self.plan.workload)
        if (talks := conversations_of(self.plan.workload)) is not None:
            latency_s = talks.counts(0).span_s(latency_s)
        model = self.settings.model.name
        identities = await handshake.identities(server.sender, server.endpoints, model)
        if self.plan.examples is None:
            await add_workload(server, self.plan.workload)
        if self.settings.bench.levels and self._owes_a_canary():
            sent = [level.label for level in self.plan.levels if self._so_far(level)[0]]
            verdict = await visit(server, self._spread, questions(self.plan.workload), sent)
            self.report.canary = verdict or self.report.canary
        for endpoint, identity in identities.items():
            await keep_snapshot(server, "start", endpoint, identity, {}, None)
        reason = EndReason.FINISHED
        async with self._sending(server) as send, watched(server):
            for level in server.levels:
                evidence = await LevelEvidence.of_level(server, level, identities)
                reason = await self._climb(server, level, evidence, latency_s, send)
                await evidence.look_again()
                if reason != EndReason.FINISHED:
                    break
        for sentence in lacks(server):
            self.say(f"warning: {sentence}")
        for endpoint, identity in (await handshake.identities(server.sender, server.endpoints, model)).items():
            await keep_snapshot(server, "end", endpoint, identity, {}, None)
        return reason

    def _owes_a_canary(self) -> bool:
        """Whether some level with a budget is still to be sent."""
        return any(not level.serves_full and self._so_far(level)[1] is not None for level in self.plan.levels)

    @asynccontextmanager
    async def _sending(self, server: ServerSession) -> AsyncIterator[SendStage]:
        """How a stage is sent: by this process, or by those that are there while the block runs."""
        if self.plan.processes == 1:
            yield partial(run_stage, server, self.plan.workload)
            return
        from kvt_async.bench.window_senders import window_senders

        self.say(f"{self.plan.processes} processes send, each its part of every stage")
        async with window_senders(server, self.plan.workload, self.plan.processes) as senders:

            async def send(stage: Stage, left: Left | None, head: Sequence[Row], shown: Json | None) -> Json:
                if stage.load.unloaded:  # one at a time can't be divided
                    return await run_stage(server, self.plan.workload, stage, left, head, shown)
                return await senders.send(stage, left, head, shown)

            yield send

    async def _climb(
        self, server: ServerSession, level: Level, evidence: LevelEvidence, first_s: float, send: SendStage
    ) -> EndReason:
        """Send the stages that are left of a level's ladder; why that ended. `first_s`: seconds of a first request."""
        bench = self.settings.bench
        done, step = self._so_far(level)
        while step is not None:
            if server.stop.is_set():
                return server.ending
            latency_s = _latency_s(first_s, done)
            stage, left = self._stage(level, step, latency_s)
            share = client_ceiling.share(
                self.settings,
                paced(self.plan.workload, step.load),
                self.plan.workload.mean_output_tokens(),
                self.plan.ceilings,
            )
            if self._beyond_us(step, share) or (done and self._too_late(stage, first_s, latency_s)):
                break
            self.say(stage_line(stage, left, self.plan.workload, self._cut(stage, latency_s)))
            head = [] if left is not None else await self._register(server, stage, evidence, share)
            await evidence.keep(stage.run.run_id)
            end = await send(stage, left, head, evidence.before)
            stage_done = self._done(stage, step, end)
            whole = end["reason"] in WHOLE
            if whole and (rule := broken_rule(bench, stage_done, done)) is not None:
                end["stop_rule"] = rule
                if step.purpose in ("auto", "list"):
                    self.say(f"stop rule: {rule}")
            if end["reason"] == EndReason.STOP_RULE:
                self.say(f"{stage.name}: bench.max_s ({bench.max_s:g} s) was over before all its requests had begun")
            await server.store.insert("bench_window_ends", end)
            self.say(stage_summary(stage, stage_done))
            if not whole:
                return server.ending
            done.append(stage_done)
            step = next_stage(bench, done)
        return EndReason.FINISHED

    def _too_late(self, stage: Stage, first_s: float, latency_s: float) -> bool:
        """Whether a load would end after the time that is given: it lasts, fills before and drains after, each for a
        latency, which grows with the load once requests wait for each other."""
        within_s, bench = self.plan.within_s, self.settings.bench
        longest_s = latency_s * (bench.auto.factor if latency_s > QUEUES * first_s else 1)
        rounds_s = (stage.n_measured or 0) * longest_s / max(stage.load.size, 1)
        seconds = (bench.duration_s or min(bench.max_s, rounds_s)) + 2 * longest_s
        if within_s is None or time.monotonic() - self._began_s + seconds <= within_s:
            return False
        self.say(
            f"the ladder ends before {stage.name}, which may take {seconds:.0f} s: of {within_s:g} s too few are left"
        )
        return True

    def _beyond_us(self, step: Next, share: Json | None) -> bool:
        """An automatic ladder ends where this client does; a list was guarded before anything was sent."""
        is_guarded = step.purpose in ("auto", "search") and not self.invocation.options.force
        if share is None or share["share"] <= 1 or not is_guarded:
            return False
        self.say(f"warning: the ladder ends before {step.load.label}: {share['sentence']} (kvt bench --force goes on)")
        return True

    async def _register(
        self, server: ServerSession, stage: Stage, evidence: LevelEvidence, share: Json | None
    ) -> list[Row]:
        """Write the stage's row in `runs`; return those that are stored together with its requests."""
        await add_runs(
            server.store,
            self.settings,
            [stage.run],
            dataset_id=self._dataset_id,
            generation=self.plan.generation,
            template_version=self.plan.workload.template_version,
            engine_name=evidence.engine_name,
        )
        plan = plan_json(self.settings, share, stage.shape_json)
        row = stage.row(self.plan.workload.describe(), self.settings.bench.slo, self.plan.ceilings, plan)
        return [("bench_stages", tuple(row.values()))]

    def _so_far(self, level: Level) -> tuple[list[Done], Next | None]:
        """The level's complete stages, in the order of its ladder, and the stage that comes next."""
        done: list[Done] = []
        while (step := next_stage(self.settings.bench, done)) is not None:
            stage, left = self._stage(level, step)
            if left is None or not left.is_done(stage):
                break
            done.append(self._done(stage, step))
        return done, step

    def _done(self, stage: Stage, step: Next, end: Json | None = None) -> Done:
        """What a stage has shown; `end`: of its last window, not yet stored."""
        run_id, load = stage.run.run_id, step.load
        figures = stage_figures(self.reader, run_id, stage.rate_per_s)
        return Done(load, step.repeat, figures, stage_throughput(self.reader, run_id, load, end))

    def _cut(self, stage: Stage, latency_s: float | None) -> str | None:
        """Where bench.max_s leaves an open loop's stage shorter than its rates need."""
        bench, n = self.settings.bench, stage.n_measured
        if bench.requests != "auto" or stage.duration_s is not None or n is None or not stage.load.is_open:
            return None
        if stage.part is not None:
            return None if self.plan.workload.size == n else f"the trace's first {bench.max_s:g} s at bench.max_s"
        if (talks := conversations_of(self.plan.workload)) is not None:
            counts = talks.counts(stage.repeat)
            enough = counts.plan.first(counts.needed(stage.load, latency_s))
        else:
            enough = max(needed(stage.load, latency_s), self.plan.examples_asked)
        return f"cut by bench.max_s ({bench.max_s:g} s) from {enough}" if n < enough else None

    def _stage(self, level: Level, step: Next, latency_s: float | None = None) -> tuple[Stage, Left | None]:
        talks = conversations_of(self.plan.workload)
        counts = None if talks is None else talks.counts(step.repeat)
        stage = make_stage(self.invocation, self.plan, level, step, latency_s, counts)
        return stage, what_is_left(self.reader, stage, None if counts is None else counts.plan)


def _latency_s(first_s: float, done: Sequence[Done]) -> float:
    """Seconds that a request takes, as far as they are known before a stage: those of the first request of all, or of
    the newest stage where that was slower."""
    newest = done[-1].rates.latency if done else math.nan
    return first_s if math.isnan(newest) else max(first_s, newest)
