"""What every backend shares, and the parts of the kvpress backend that need none of its libraries."""

import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.serve import KvpressOptions, chosen_backend
from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.app import application
from kvt_async.serve.catalogue import not_a_policy, wrong
from kvt_async.serve.engine import Engine
from kvt_async.serve.kv_request import parse_kv
from kvt_async.serve.prompt_format import context_tokens
from kvt_async.serve.tokenizer import Encoded
from kvt_async.serve.weights import REFERENCE_DIR
from kvt_async.serve.work import Finished, Text, Work
from tests.serve.support import Api, body, example, parse_metrics, start

NO_EXTRA = pytest.mark.skipif(find_spec("kvpress") is not None, reason="the extra kvpress is installed here")


class OnePress:
    """A catalogue as small as can be."""

    default: str | None = "squeeze"

    def names(self) -> Sequence[str]:
        return ["squeeze"]

    def check(self, name: str, params: Mapping[str, Any]) -> None:
        if name != "squeeze":
            raise not_a_policy(name, self.names())

    def check_while_generating(self, name: str, params: Mapping[str, Any]) -> None:
        raise wrong("kv.when", "must be 'prefill'")


class Cramped(Engine):
    """The numpy engine on a machine whose memory ends at 250 tokens, or in the middle of an answer to 200."""

    def generate(self, work: Work) -> Generator[Text | Finished, None, None]:
        full = ApiError("no memory", status=507, kind="insufficient_storage", code="out_of_memory")
        if len(work.ids) > 250:
            raise full
        for event in super().generate(work):
            if len(work.ids) == 200 and isinstance(event, Finished):
                raise full
            yield event


def test_a_backends_default_policy_serves_requests_that_give_a_budget_and_name_none() -> None:
    assert parse_kv({"budget": 0.5}, OnePress()).policy == "squeeze"
    assert parse_kv({"keep_tokens": 3, "params": {"a": 1}}, OnePress()).params == {"a": 1}
    for nothing in (None, {}, {"policy": "full"}):
        assert parse_kv(nothing, OnePress()).policy == "full"


@pytest.mark.parametrize("name", ["snapkv", "squeez"])
def test_a_policy_is_looked_for_among_the_backends_own(name: str) -> None:
    with pytest.raises(ApiError, match=f"'{name}' is not a policy.*squeeze") as refused:
        parse_kv({"policy": name, "budget": 0.5}, OnePress())
    assert refused.value.param == "kv.policy"


def test_a_token_that_the_end_of_the_context_cuts_is_refused_or_belongs_to_the_question() -> None:
    starts, ends = np.array([0, 4, 8]), np.array([4, 8, 12])
    encoded = Encoded(np.arange(3), ends, starts)
    assert context_tokens(encoded, 8, 8) == context_tokens(encoded, 8, 8, may_split=True) == 2
    with pytest.raises(ApiError, match="ends inside a token"):
        context_tokens(encoded, 6, 6)
    assert context_tokens(encoded, 6, 6, may_split=True) == 1


async def test_a_request_that_the_engine_refuses_has_its_own_status_and_the_server_lives_on() -> None:
    runner, base = await start(application(Cramped(REFERENCE_DIR, 64 << 20)))
    async with aiohttp.ClientSession() as session:
        api = Api(base, session)
        for stream in (False, True):
            status, reply = await api.post(body(example(300), stream=stream))
            assert status == 507
            assert reply["error"] == {
                "message": "no memory", "type": "insufficient_storage", "param": None, "code": "out_of_memory",
            }  # fmt: skip
        # An answer long enough for its stream to have begun before it fails: then the status is sent already.
        *_, text, error, done = await api.stream(body(example(200), max_tokens=400, ignore_eos=True))
        assert text["choices"][0]["delta"]["content"]
        assert (error["error"]["code"], done) == ("out_of_memory", "[DONE]")
        status, answered = await api.post(body(example(150)))
        assert (status, answered["choices"][0]["finish_reason"]) == (200, "stop")
        samples = parse_metrics((await api.get("/metrics"))[1])
        assert samples['kvt:request_errors_total{model_name="reference",engine="0",status="507"}'] == 3
    await runner.cleanup()


def test_the_backends_options_are_kept_apart(tmp_path: Path) -> None:
    assert chosen_backend("numpy", str(tmp_path), None, None, None) is None
    assert chosen_backend("kvpress", "m", "snapkv", None, "float16") == KvpressOptions("m", "snapkv", "auto", "float16")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("kvpres", "m", None, None, None), "there is no backend 'kvpres'"),
        (("kvpress", None, None, None, None), "needs --model"),
        (("kvpress", "m.gguf", None, None, None), "reads no GGUF file"),
        (("numpy", None, "snapkv", None, None), "--press belongs to the kvpress backend"),
        (("numpy", None, None, "cuda", None), "--device belongs to the kvpress backend"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        chosen_backend(*arguments)


@NO_EXTRA
@pytest.mark.parametrize("program", ["kvt_async", "kvt_async.serve"])
def test_without_the_extra_the_kvpress_backend_is_exit_3_with_the_command_that_installs_it(program: str) -> None:
    command = [sys.executable, "-m", program, *(["serve"] if program == "kvt_async" else [])]
    command += ["--port", "0", "--backend", "kvpress", "--model", str(REFERENCE_DIR)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "missing here:" in done.stderr
    assert "pip install 'kvt[kvpress]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_numpy_server_never_loads_torch_transformers_or_kvpress() -> None:
    code = (
        "import sys; from kvt_async.serve.app import make_app; make_app(); import kvt_async.cli; "
        "print([m for m in ('torch', 'transformers', 'kvpress') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
