"""`kvt bench calibrate`: the client's ceilings, measured by benching the null server."""

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kvt_async.bench import client_ceiling
from kvt_async.bench.bench import BenchOptions, execute
from kvt_async.bench.null_server import null_server
from kvt_async.bench.stage_figures import Figures, stage_figures
from kvt_async.clock import utc_now
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.records import Json
from kvt_async.store.reader import Reader

GAP_MS = 20  # between the events of a stream: 50 tokens a second
TOKENS = 50
STREAMS = (16, 64, 256, 1024)


def calibrate(settings: Settings, say: Callable[[str], None], *, seconds: float = 2.0) -> Json:
    """Measure and keep; takes about six times `seconds`. Raises ServerError when the null server doesn't start."""
    with null_server() as url, tempfile.TemporaryDirectory(prefix="kvt-calibrate-") as folder:
        bench = NullBench(settings, url, folder)
        floor, _ = bench("floor", 1, 4, 0, requests=100)
        say(f"TTFT floor: p50 {floor.value('ttft_p50_ms'):.2f} ms, p99 {floor.value('ttft_p99_ms'):.2f} ms")
        many, _ = bench("requests", 64, 1, 0, duration_s=seconds)
        per_s = many.output_per_s  # one token a request
        say(f"requests: {per_s:.0f}/s at 64 in flight")
        events, streams, clean = 0.0, 1, 0
        rounds = max(1, round(seconds * 1000 / (TOKENS * GAP_MS)))
        steps = []
        for n in STREAMS:
            # whole rounds, not seconds: a window that ends within a round counts the slots that began one more as slow
            figures, client = bench(f"streams-{n}", n, TOKENS, GAP_MS, requests=n * rounds)
            wanted = n * 1000 / GAP_MS
            kept = figures.output_per_s > 0.9 * wanted
            steps.append(
                {
                    "streams": n,
                    "events_per_s": figures.output_per_s,
                    "asked": wanted,
                    "verdict": client["verdict"],
                    "signal": client["signal"],
                }
            )
            say(
                f"{n} streams at {1000 / GAP_MS:.0f} events/s each: {figures.output_per_s:.0f} events/s of "
                f"{wanted:.0f}, {client['verdict']} ({client['signal']})"
            )
            events = max(events, figures.output_per_s)
            streams = n if kept else streams
            clean = n if kept and client["verdict"] == ClientVerdict.CLEAN else clean
            if figures.output_per_s < 0.8 * wanted:
                break
    ceilings = {
        "requests_per_s": per_s,
        "output_events_per_s": events,
        "streams": streams,
        "streams_clean": clean,
        "streams_is_least": streams == STREAMS[-1],
        "events_per_stream_s": 1000 / GAP_MS,
        "ttft_floor_ms": {"p50": floor.value("ttft_p50_ms"), "p99": floor.value("ttft_p99_ms")},
        "steps": steps,
        "transport": settings.engine.transport,
        "loop": settings.engine.loop,
        "measured_at": utc_now(),
    }
    say(f"kept in {client_ceiling.keep(settings, ceilings)}")
    return ceilings


@dataclass(frozen=True, slots=True)
class NullBench:
    """Benches of the null server at `url`, each a stage in a group of its own under `folder`."""

    settings: Settings
    url: str
    folder: str

    def __call__(self, name: str, concurrency: int, tokens: int, gap_ms: float, **until: float) -> tuple[Figures, Json]:
        """The stage's figures and what the client says of itself. `tokens` a reply, `gap_ms` between them; `until`:
        `requests` or `duration_s` of bench."""
        lengths = {"kind": "fixed", "std": 0, "low": 1, "high": 1_000_000, "values": None, "weights": None}
        bench: dict[str, Any] = {
            "concurrency": concurrency,
            **until,
            "workload": {
                "kind": "synthetic",
                "input_tokens": {**lengths, "value": 32},
                "output_tokens": {**lengths, "value": tokens},
            },
            "body": {"pace": {"gap_ms": gap_ms}},
            "scrape_interval_s": 0,
        }
        engine = self.settings.engine.model_dump(mode="json")
        data = Settings.model_construct().model_dump(mode="json") | {
            "experiment": {"exp_group_id": name},
            "tokenizer": {"name": "approx:chars/4"},
            "model": {"name": "null-server"},
            "engine": engine | {"base_url": self.url, "headers": {}, "stream": True},
            "output": {"runs_dir": self.folder, "data_dir": self.folder},
            "bench": bench,
        }
        report = execute(Settings.model_validate(data), BenchOptions(force=True, guarded=False, quiet=True))
        with closing(Reader(run_paths(self.folder, name).db)) as reader:
            client = reader.rows("SELECT * FROM client_health ORDER BY created_at DESC LIMIT 1")[0]
            return stage_figures(reader, report.stages[0]["run_id"], None), dict(client)
