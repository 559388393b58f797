"""One invocation of `kvt bench`, once its config has been checked: what is left, session, server, stages, end."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvt_async.bench import client_ceiling
from kvt_async.bench.bench_canary import harsh_second, questions, spread
from kvt_async.bench.bench_evidence import Looks
from kvt_async.bench.ladder import Done, Next, broken_rule, next_stage
from kvt_async.bench.messages import BenchReport, stage_line, stage_summary
from kvt_async.bench.outage import Outage
from kvt_async.bench.readiness import add_workload, keep_identities, ready, workload_id
from kvt_async.bench.stage import Left, Stage, make_stage, needed, plan_json, what_is_left
from kvt_async.bench.stage_figures import stage_figures
from kvt_async.bench.stage_run import BenchLive, run_stage
from kvt_async.bench.stage_throughput import stage_throughput
from kvt_async.bench.workload import Workload
from kvt_async.contract.formulas.open_loop_throughput import WHOLE
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json, Level
from kvt_async.session import canary
from kvt_async.session.close import Invoked, run_session
from kvt_async.session.experiment_rows import add_generation, add_runs, command_line, open_session
from kvt_async.session.interrupts import Interrupts
from kvt_async.session.probes import Asking
from kvt_async.session.run_log import RunLog
from kvt_async.session.server_evidence import shown
from kvt_async.store.columns import Row
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer
from kvt_async.sweep.server_session import beside
from kvt_async.ways.levels import label
from kvt_async.ways.registry import way_of

NO_LIMIT = 1_000_000  # slots of a Sender whose load is bounded elsewhere: by slots of the closed loop, or by nothing


@dataclass(frozen=True, slots=True)
class Options(Invoked):
    """Of a bench."""

    guarded: bool = True  # False: the calibration itself


class BenchInvocation:
    """`go` sends what is to be sent and says what came of it."""

    def __init__(
        self, settings: Settings, options: Options, paths: RunPaths, reader: Reader, generation: int, contract: Json,
        workload: Workload, levels: Sequence[Level], ceilings: Json | None, say: Callable[[str], None], log: RunLog,
    ) -> None:  # fmt: skip
        self.settings, self.options, self.paths, self.reader = settings, options, paths, reader
        self.generation, self.contract, self.workload, self.levels = generation, contract, workload, levels
        self.ceilings, self.say, self.log = ceilings, say, log
        self.report = BenchReport(settings.experiment.exp_group_id, str(paths.db), generation)
        self.spread = spread(reader, settings, generation, levels)
        self.levels = harsh_second(levels, self.spread)

    async def go(self) -> BenchReport:
        """Raises KvtError for what stops it before its end; Ctrl-C and a dead server are reasons in the report."""
        found = [self._so_far(level) for level in self.levels]
        skipped = sum(len(done) for done, _ in found)
        if skipped:
            self.say(f"resuming: {skipped} stages are complete and skipped")
        if all(step is None for _, step in found):
            self.say("nothing to send")
        else:
            await self._session()
        self._summarise()
        return self.report

    async def _session(self) -> None:
        settings, report = self.settings, self.report
        async with Writer(self.paths.db, settings.db.flush_interval_s, secrets=known_secrets(settings)) as store:
            await add_generation(store, self.reader, settings, self.contract, self.generation)
            report.session_id = await open_session(store, settings, self.generation, settings.bench.seed)
            self.log("session", session_id=report.session_id, command=command_line(settings))
            await run_session(
                store, self.log, report, settings.limits.grace_s, self.say,
                lambda interrupts: self._counted(store, interrupts),
            )  # fmt: skip

    async def _counted(self, store: Writer, interrupts: Interrupts) -> EndReason:
        """The session's reason to end; the report has its counts by then, for they decide the exit code."""
        reason = await self._served(store, interrupts)
        self._summarise()
        return reason

    async def _served(self, store: Writer, interrupts: Interrupts) -> EndReason:
        way = way_of(self.levels[0].apply_via)
        if way.canary != "across":
            return await self._with_server(store, interrupts, self.levels, None)
        for level in self.levels:
            ask = self._canary_is_owed() and self.spread is not None and self.spread.needs([level])
            if self._so_far(level)[1] is None and not ask:
                continue
            folder = self.paths.run_dir / "launch"
            async with way.serve(self.settings, level, folder, self.say) as server:
                reason = await self._with_server(store, interrupts, [level], server.output if server else None)
            if reason != EndReason.FINISHED:
                return reason
        return EndReason.FINISHED

    async def _with_server(
        self, store: Writer, interrupts: Interrupts, levels: Sequence[Level], output: Callable[[], str] | None
    ) -> EndReason:
        settings = for_sending(self.settings)
        endpoints = list(dict.fromkeys(url for level in levels for url in level.endpoints))
        stop = asyncio.Event()
        async with Sender(settings, endpoints=endpoints) as sender:
            sender.breaker = Outage(settings.limits.retry)
            assert self.report.session_id is not None
            live = BenchLive(
                settings, self.workload, store, sender, interrupts, self.report.session_id, self.say, self.log,
                self.options.quiet or self.options.as_json, stop,
            )  # fmt: skip
            found = await ready(live, endpoints, levels)
            await add_workload(live, self.reader, self.dataset_id)
            await self._canary(live, levels)
            await keep_identities(live, "start", endpoints, found)
            async with beside(self._watch_interrupts(live), self._watch_breaker(live)):
                for level in levels:
                    evidence = await self._evidence(live, level, dict(zip(endpoints, found, strict=True)), output)
                    reason = await self._ladder(live, level, str(found[0]["engine_name"]), evidence)
                    await evidence.last_look()
                    if reason != EndReason.FINISHED:
                        break
            for lacking, n in sender.room.lacking.items():
                self.say(f"warning: {n:,} times a connection could not be opened: {lacking}")
            await keep_identities(live, "end", endpoints, None)
            return reason

    async def _ladder(self, live: BenchLive, level: Level, engine_name: str, evidence: Looks) -> EndReason:
        bench = self.settings.bench
        done, step = self._so_far(level)
        while step is not None:
            if live.stop.is_set():
                return self._ending(live)
            stage, left = self._stage(level, step, _latency_s(live, done))
            share = client_ceiling.share(self.settings, step.load, self.workload.mean_output_tokens(), self.ceilings)
            if self._beyond_us(step, share):
                break
            self.say(stage_line(stage, left, self.workload, self._cut(stage, _latency_s(live, done))))
            head = [] if left is not None else await self._register(live, stage, engine_name, share)
            await evidence.keep(stage.run.run_id)
            end = await run_stage(live, stage, left, head, evidence.shown)
            one = self._done(stage, step, end.row)
            whole = end.reason in WHOLE
            if whole and (rule := broken_rule(bench, one, done)) is not None:
                end.row["stop_rule"] = rule
                if step.purpose in ("auto", "list"):
                    self.say(f"stop rule: {rule}")
            if end.reason == EndReason.STOP_RULE:
                self.say(f"{stage.name}: bench.max_s ({bench.max_s:g} s) was over before all its requests had begun")
            await live.store.insert("bench_window_ends", end.row)
            self.say(stage_summary(stage, one))
            if not whole:
                return self._ending(live)
            done.append(one)
            step = next_stage(bench, done)
        return EndReason.FINISHED

    def _ending(self, live: BenchLive) -> EndReason:
        """Why the session ends before its stages do."""
        return EndReason.INTERRUPTED if live.interrupts.hit else live.sender.breaker.ending

    async def _canary(self, live: BenchLive, levels: Sequence[Level]) -> None:
        """Raises DeadKnobError where no budget changes an answer, unless that is allowed."""
        if not self.settings.bench.levels or not self._canary_is_owed():
            return
        asked = questions(self.workload)
        asking = Asking(asked, live.sender.probe, live.store, live.session_id)
        if self.spread is not None:
            found = await self.spread.visit(self.settings, levels, asked.entries, asking)
        else:
            pair = canary.pair(levels) if way_of(levels[0].apply_via).canary == "within" else None
            found = await canary.run_canary(self.settings, pair, asked.entries, asking) if pair is not None else None
        if found is None:
            return
        self.report.canary = found.verdict
        self.log("canary", verdict=found.verdict, reason=found.reason)
        sent = [label(level) for level in self.levels if self._so_far(level)[0]]
        sentence = canary.check(found, allow=self.options.allow_dead_knob, sent=sent)
        if sentence is not None:
            self.say(f"warning: {sentence}")

    def _canary_is_owed(self) -> bool:
        """Some level with a budget is still to be sent."""
        return any(not level.is_full and self._so_far(level)[1] is not None for level in self.levels)

    async def _evidence(
        self, live: BenchLive, level: Level, who: Mapping[str, Json], output: Callable[[], str] | None
    ) -> Looks:
        """What the level's server says of its budget before the first request."""
        said = await shown(live.sender, level, output) if self.settings.bench.levels else None
        if said is not None and said["value"] is None:
            self.say(f"warning: {label(level)}: {said['read_from']} shows no budget: it stays unverified")
        return Looks(live, level, [who[url] for url in level.endpoints], output, said)

    def _beyond_us(self, step: Next, share: Json | None) -> bool:
        """An automatic ladder ends where this client does; a list was guarded before anything was sent."""
        if share is None or share["share"] <= 1 or self.options.force or step.purpose not in ("auto", "search"):
            return False
        self.say(f"warning: the ladder ends before {step.load.label}: {share['sentence']} (--force goes on)")
        return True

    async def _register(self, live: BenchLive, stage: Stage, engine_name: str, share: Json | None) -> list[Row]:
        """The stage's row in `runs`, and those to be stored together with its requests."""
        await add_runs(
            live.store,
            self.settings,
            [stage.run],
            dataset_id=self.dataset_id,
            generation=self.generation,
            template_version=self.dataset_id,
            engine_name=engine_name,
        )
        row = stage.row(
            self.workload.describe(), self.settings.bench.slo, self.ceilings, plan_json(self.settings, share)
        )
        return [("bench_stages", tuple(row.values()))]

    async def _watch_interrupts(self, live: BenchLive) -> None:
        await live.interrupts.stop.wait()
        live.stop.set()
        live.sender.halt()

    async def _watch_breaker(self, live: BenchLive) -> None:
        await live.sender.breaker.tripped.wait()
        self.say(f"stopping: {live.sender.breaker.reason}")
        live.stop.set()

    @property
    def dataset_id(self) -> str:
        return workload_id(self.workload.describe())

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
        figures = stage_figures(self.reader, run_id, load.rate_per_s)
        return Done(load, step.repeat, figures, stage_throughput(self.reader, run_id, load, end))

    def _cut(self, stage: Stage, latency_s: float | None) -> str | None:
        """Where bench.max_s leaves an open loop's stage shorter than its rates need."""
        bench, n = self.settings.bench, stage.n_measured
        if bench.requests != "auto" or bench.duration_s is not None or n is None or not stage.load.is_open:
            return None
        enough = needed(stage.load, latency_s)
        return f"cut by bench.max_s ({bench.max_s:g} s) from {enough}" if n < enough else None

    def _stage(self, level: Level, step: Next, latency_s: float | None = None) -> tuple[Stage, Left | None]:
        sql = "SELECT count(*) FROM bench_stages JOIN runs USING (run_id) WHERE exp_group_id = ? AND generation = ?"
        n: int = self.reader.value(sql, self.settings.experiment.exp_group_id, self.generation)
        stage = make_stage(self.settings, self.reader, self.generation, level, step, n, latency_s)
        return stage, what_is_left(self.reader, stage)

    def _summarise(self) -> None:
        self.report.read(self.reader)


def _latency_s(live: BenchLive, done: Sequence[Done]) -> float | None:
    """Of a request, as far as it is known before a stage: of the first request of all, or of the newest stage."""
    newest = done[-1].rates.latency if done else math.nan
    known = [value for value in (live.latency_s, newest) if value is not None and not math.isnan(value)]
    return max(known, default=None)


def for_sending(settings: Settings) -> Settings:
    """Settings of a Sender that neither bounds, paces nor repeats: the load is the bench's alone."""
    limits: dict[str, Any] = {
        "concurrency": NO_LIMIT,
        "adaptive": False,
        "requests_per_minute": None,
        "tokens_per_minute": None,
    }
    if not settings.bench.retries:
        limits["retry"] = settings.limits.retry.model_copy(update={"max_attempts": 1})
    return settings.model_copy(update={"limits": settings.limits.model_copy(update=limits)})
