"""Engines of one model that differ in their KV cache: a scripted server for each level, swept and analysed."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyzer.report.answers import FirstScreen, first_screen
from analyzer.results.results import Results, read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.errors import ContradictedError
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CONSTRAINED
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.worlds import db_of, query, sweep_settings


def cache_info(**labels: Any) -> str:
    """A metrics page as vLLM's, with these labels of its cache config."""
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{{inner}}} 1.0\n"


@dataclass(frozen=True)
class Engine:
    """A level and the server that it has to itself."""

    policy: str  # or 'constrained full'
    bits: float | None = None  # None: full cache
    metrics: str = ""
    pages: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True)
class Swept:
    """`status`: (status, effective width, reason) by policy."""

    settings: Settings
    status: dict[str, tuple[str, float | None, str]]
    contradicted: tuple[str, ...]

    def results(self) -> Results:
        with closing(connect_for_writing(db_of(self.settings))) as conn:
            return read_results(conn, "g")

    def first_screen(self) -> FirstScreen:
        return first_screen(self.results(), self.settings)


async def swept(folder: Path, engines: Sequence[Engine], evidence: str, *overrides: str) -> Swept:
    """Sweep the engines, whose first one is full cache, with this kv.evidence."""
    async with AsyncExitStack() as stack:
        levels = []
        for engine in engines:
            script = Script(metrics=engine.metrics, pages=dict(engine.pages), said=dict(engine.said), key=engine.key)
            _, url = await stack.enter_async_context(serving(script))
            if engine.policy == CONSTRAINED:
                overrides += (f"kv.constrained={{params: {{prefix_caching: false}}, base_url: '{url}'}}",)
                continue
            budget = "policy: full" if engine.bits is None else f"budget: {engine.bits}, policy: {engine.policy}"
            levels.append(f"{{{budget}, base_url: '{url}'}}")
        settings = sweep_settings(
            folder, url, "kv.unit=bits", f"kv.levels=[{', '.join(levels)}]", f"kv.evidence={evidence}",
            "kv.apply={via: endpoint}", "kv.control_repeats=0", "analysis.resamples=200", *overrides, n=2,
        )  # fmt: skip
        assert (await run(settings, options=SweepOptions(quiet=True))).exit_code == 0
    contradicted: tuple[str, ...] = ()
    with closing(connect_for_writing(db_of(settings))) as conn:
        score(conn, "g")
        try:
            analyze(conn, settings)
        except ContradictedError as error:
            contradicted = error.details
    rows = query(
        settings,
        "SELECT iif(kv_policy = 'full', series, kv_policy), status, effective_p50, reason FROM run_evidence "
        "JOIN runs USING (run_id)",
    )
    return Swept(settings, {policy: (status, effective, reason) for policy, status, effective, reason in rows},
                 contradicted)  # fmt: skip
