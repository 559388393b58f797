"""Several models under one load: drawn by weight from the seed, stored, asked, and in the contract."""

from pathlib import Path

import pytest

from kvt_async.bench.bench import BenchOptions, run
from kvt_async.bench.option_texts import models, ramp, steps
from kvt_async.bench.request_details import NO_DETAILS, RequestDetails
from kvt_async.bench.request_models import with_model
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.errors import ConfigError, ContractMismatchError
from kvt_async.contract.load import load_settings
from kvt_async.contract.model_shares import ModelShare
from tests.servers.openai_server import Script, serving
from tests.worlds import bench_settings, query

QUIET = BenchOptions(quiet=True)
TWO = Bench(models=[ModelShare(name="base", weight=3), ModelShare(name="lora-a", weight=1)])


def test_models_are_drawn_by_weight_and_a_place_keeps_its_own() -> None:
    drawn = [with_model(TWO, NO_DETAILS, 0, seq).model for seq in range(4000)]
    assert drawn[:50] == [with_model(TWO, NO_DETAILS, 0, seq).model for seq in range(50)]
    assert 0.72 < drawn.count("base") / 4000 < 0.78, "a binomial of 4,000 strays by 0.021 at most, in 99.8%"
    assert drawn[:200] != [with_model(TWO, NO_DETAILS, 1, seq).model for seq in range(200)]
    turns = {with_model(TWO, RequestDetails(conversation_idx=7), 0, seq).model for seq in range(30)}
    assert len(turns) == 1, "a conversation does not change its model"
    assert with_model(Bench(), NO_DETAILS, 0, 1) is NO_DETAILS


async def test_every_request_asks_the_model_that_is_stored_of_it(tmp_path: Path) -> None:
    two = "bench.models=[{name: base, weight: 3}, {name: lora-a, weight: 1}]"
    async with serving(Script()) as (server, url):
        config = bench_settings(tmp_path, url, "bench.concurrency=2", two)
        report = await run(config, QUIET)
        with pytest.raises(ContractMismatchError):
            await run(bench_settings(tmp_path, url, "bench.concurrency=2", "bench.models=[base, lora-a]"), QUIET)
    assert report.exit_code == 0
    stored = query(config, "SELECT model, count(*) FROM bench_requests GROUP BY model ORDER BY model")
    ready = ["base", "lora-a"]  # each is asked once before anything is sent
    sent = [body["model"] for body in server.bodies]
    assert sent[:2] == ready
    assert [(name, sent[2:].count(name)) for name in ready] == stored
    assert sum(n for _, n in stored) == 24


def test_what_the_command_line_says_of_models_ramps_and_steps() -> None:
    both = load_settings(None, [*models(["base=3", "org/lora:8b"]), *steps("rate", "2:30s,8:30")], environ={}).bench
    assert [(model.name, model.weight) for model in both.models] == [("base", 3), ("org/lora:8b", 1)]
    assert [(step.rate, step.for_s) for step in both.steps] == [(2, 30), (8, 30)]
    one = load_settings(None, [*models(["base"]), *ramp("concurrency", "1:8"),
                               "bench.duration_s=9"], environ={})  # fmt: skip
    assert (one.model.name, one.bench.models) == ("base", [])
    assert one.bench.ramp is not None
    assert (one.bench.ramp.of, one.bench.ramp.to) == ("concurrency", 8)
    with pytest.raises(ConfigError, match="no weight"):
        models(["base=x"])
    with pytest.raises(ConfigError, match="not two numbers"):
        ramp("rate", "1-20")
    with pytest.raises(ConfigError, match="not two numbers"):
        steps("rate", "2:30,8")
    with pytest.raises(ConfigError, match="twice"):
        load_settings(None, models(["a=1", "a=2"]), environ={})
