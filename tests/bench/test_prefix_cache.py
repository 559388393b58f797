"""Prompts that a server has seen: warm, and said so; salted ones are cold. Against a server with a prefix cache."""

from pathlib import Path
from typing import Any

import pytest

from analyzer.bench.bench_analysis import bench_stages
from kvt_async.bench.bench import BenchOptions, run
from tests.servers.openai_server import FakeServer, Script, on_loopback
from tests.worlds import bench_settings, page_of

BLOCK = 16  # characters; a cache keeps whole blocks


class Caching(FakeServer):
    """Reports in usage how much of a prompt it had in whole blocks from prompts before."""

    def __init__(self) -> None:
        super().__init__(Script())
        self.blocks: set[str] = set()

    def usage(self, prompt: str, n: int) -> dict[str, Any]:
        cached = 0
        for end in range(BLOCK, len(prompt) + 1, BLOCK):
            cached = end if prompt[:end] in self.blocks and cached == end - BLOCK else cached
            self.blocks.add(prompt[:end])
        details = {"prompt_tokens_details": {"cached_tokens": cached // 4}}
        return {"prompt_tokens": len(prompt) // 4, "completion_tokens": n, **details}


@pytest.mark.parametrize(("salt", "label"), [("false", "warm"), ("true", "cold")])
async def test_the_same_prompts_twice_are_warm_and_salted_ones_cold(tmp_path: Path, salt: str, label: str) -> None:
    async with on_loopback(Caching()) as url:
        for group, expected in (("first", "cold"), ("second", label)):  # the ready check's prompt is its own
            settings = bench_settings(
                tmp_path, url, f"experiment.exp_group_id={group}", "bench.concurrency=2", f"bench.salt={salt}",
                "bench.warm_up={requests: 0, rounds: 0}", "analysis.charts=false",
            )  # fmt: skip
            await run(settings, BenchOptions(quiet=True))
            found = bench_stages(settings)
            assert [point["cache"] for point in found["points"]] == [expected]
    warned = "WARNING: these are not figures of prompts that the server has not seen" in found["verdict"][1]
    page = page_of(found)
    assert warned is ("Prompts came in part from the server's prefix cache" in page) is (label == "warm")
