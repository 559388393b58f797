"""Whatever stands in a config, it is a config or an error with exit code 2: quickly, and never a traceback.

KVT_FUZZ_CASES sets how many random configs go through the loader, KVT_FUZZ_COMMANDS how many through `kvt validate`.
"""

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from kvt_async.__main__ import main
from kvt_async.contract.config_yaml import MOST_BYTES, MOST_VALUES
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings

CASES = int(os.environ.get("KVT_FUZZ_CASES", "300"))
COMMANDS = int(os.environ.get("KVT_FUZZ_COMMANDS", "40"))
LONGEST_S = 5.0  # of processor time: another program may have the machine meanwhile


def keys_of(model: type[BaseModel], at: str = "") -> Iterator[str]:
    """Every key of the config, sections and leaves, dotted; lists of sections by their section alone."""
    for name, field in model.model_fields.items():
        yield at + name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from keys_of(inner, f"{at}{name}.")


KEYS = [*dict.fromkeys(keys_of(Settings))]
DEFAULTS = Settings.model_construct().model_dump(mode="json")
NUMBERS = [
    "0", "-1", "1", "2", "5", "0.5", "1e-300", "1e308", "1e400", ".inf", "-.inf", ".nan", "1.5", "9223372036854775807",
    "9223372036854775808", "-9223372036854775809", "99999999999999999999999", "0x" + "f" * 9000, "9" * 5000, "0o7_",
    "0x_", "1:99", "1_000", "true", "~", "2024-01-01", "2024-13-99", "2024-01-01T25:00:00Z",
]  # fmt: skip
TEXTS = [
    "''", '"\\0"', '"\\ud800"', '"\\r\\nX-A: 1"', "x" * 300, "/".join("ab" * 900), "../..", "/dev/null", "${NOT_SET}",
    "${A:-b}", "${A:-}", "${", "{x", "'{'", '"{budget}"', '"{nosuch}"', '"{0}"', '"{{"', "http://h:99999", "http://[::1",
    "http://", "http://a..b/", "http://h:x/v1", "http://[zz]/", "ftp://h/", "HTTP://H/", "http://u:p@h:1/v1?a=b#c",
    "'http://h:{port}/'", '"http://h\\x7f/"', "http://" + "a" * 5000, "!!binary aGk=", "!!binary x", "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "!!python/object:os.system {}", "!!int abc", "!!float x", "!!timestamp x",
    "!!str 5", "!nosuch 1", "*nowhere", "'\U0001f600'", "a\tb", "%", "@", "`", "null", "[", "{", "- a", "a: b: c",
]  # fmt: skip
NESTED = [
    "[]", "{}", "[[]]", "{a: {}}", "[1, x, ~]", "{1: 2}", "{~: 1}", "{a: !!binary aGk=}", "[1.0, .nan]", "{? [a] : b}",
    "{a: 99999999999999999999}", "{Content-Length: 5}", "{Host: h}", "{transfer-encoding: chunked}", '{"a\\r": b}',
    '{a: "b\\nc"}', "{a: 1, a: 2}", "{<<: {a: 1}}", "{<<: 1}", "&a [*a]", "&a {b: *a}", "[" * 60 + "]" * 60,
    "{a: " * 5000, "[" * 20_000, "{via: body}", "{via: launch, command: \"'\"}", "{via: endpoint, endpoints: {1.0: x}}",
    "[{budget: 1e300}]", "[{base_url: 'http://h:-1'}]", "[{kind: baseline}]", "[" + "1," * 9000 + "]", "{a=b: c}",
    "{'': x}",
]  # fmt: skip


def value(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(NUMBERS)
    if kind < 0.6:
        return rng.choice(TEXTS)
    if kind < 0.85:
        return rng.choice(NESTED)
    return "".join(rng.choice("[]{}:,&*!|>'\"%@`#-?~ \n\tab01.e${}<\\") for _ in range(rng.randrange(1, 30)))


def default(key: str) -> str:
    """What stands at a key anyway: not all of a config is odd."""
    node: Any = DEFAULTS
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return json.dumps(node)


def overrides(rng: random.Random) -> list[str]:
    """One to three keys, each with an odd value; now and then a key that does not exist."""
    pairs = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice(KEYS)
        if rng.random() < 0.05:
            key = rng.choice(
                (key + ".x", "decoding.extra_body" + ".a" * 3000, "", ".", key.upper(), "kv.levels.0.policy")
            )
        pairs.append(f"{key}={default(key) if rng.random() < 0.3 else value(rng)}")
    return pairs


def text(rng: random.Random) -> str:
    """A file with the same keys, sometimes cut or with a stray character."""
    lines = []
    for pair in overrides(rng):
        key, _, odd = pair.partition("=")
        sections = key.split(".")[:40]
        lines += ["  " * n + f"{name}:" for n, name in enumerate(sections)]
        lines[-1] += f" {odd}"
    whole = "\n".join(lines)
    return whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.1 else whole


def test_the_loader_takes_or_refuses_any_value_of_any_key(tmp_path: Path) -> None:
    file, taken, longest, slowest = tmp_path / "odd.yaml", 0, 0, 0.0
    for case in range(CASES):
        rng = random.Random(case)
        in_file = rng.random() < 0.3
        odd = text(rng) if in_file else overrides(rng)
        began = time.process_time()
        try:
            if in_file:
                file.write_bytes(str(odd).encode("utf-8", "surrogatepass"))
                load_settings(file, environ={})
            else:
                load_settings(None, odd, environ={})
            taken += 1
        except ConfigError as error:
            longest = max(longest, len(str(error)))
        except Exception as error:
            raise AssertionError(f"case {case}: {odd!r}") from error
        slowest = max(slowest, time.process_time() - began)
    assert 0 < taken < CASES
    assert longest < 10_000
    assert slowest < LONGEST_S


def test_the_command_ends_with_0_or_2_for_any_value_of_any_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ok.yaml").write_text("dataset: {name: kvtext, task: multikey, params: {contexts: 6, max_tokens: 256}}\n")
    codes, slowest = set[object](), 0.0
    for case in range(COMMANDS):
        odd = overrides(random.Random(-1 - case))
        began = time.process_time()
        asked = [part for pair in odd for part in ("--override", pair)]
        monkeypatch.setattr(sys, "argv", ["kvt", "validate", "-c", "ok.yaml", *asked])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code or 0
        slowest = max(slowest, time.process_time() - began)
        printed = capsys.readouterr()
        assert code in (0, 2), (case, odd, code, printed.err)
        assert "Traceback" not in printed.err, (case, odd)
        codes.add(code)
    assert codes == {0, 2}
    assert slowest < LONGEST_S


BOMB = "a: &a [x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{','.join(['*' + chr(97 + n)] * 10)}]}}\n" for n in range(9)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB, f"more than {MOST_VALUES:,} values"),
        (MERGES, f"more than {MOST_VALUES:,} values"),
        ("decoding: {extra_body: [" + "1," * MOST_VALUES + "]}", f"more than {MOST_VALUES:,} values"),
        (CHAIN, "nested more than"),
        ("decoding: {extra_body: &a {b: *a}}", "contains itself"),
        ("a: &a\n  <<: *a\n", "contains itself"),
        ("[" * 20_000, "nested more than"),
        ("# " + "x" * MOST_BYTES, "larger than 256 KiB"),
        ("# " + "\u00e9" * (MOST_BYTES // 2), "larger than 256 KiB"),
        ("a: \x01", "not valid YAML"),
        ("decoding: {seed: 0x_}", "not valid YAML"),
        ("decoding: {extra_body: {day: 2024-01-01}}", "decoding.extra_body.day is a date"),
        ("decoding: {extra_body: {a: !!binary aGk=}}", "decoding.extra_body.a is binary data"),
        ("decoding: {extra_body: {a: !!set {b}}}", "decoding.extra_body.a is a set"),
        ("decoding: {extra_body: {logit_bias: {50256: -100}}}", "in decoding.extra_body.logit_bias, the key 50256"),
        ('output: {runs_dir: "a\\0b"}', "output.runs_dir holds a NUL"),
        ('decoding: {extra_body: {"a\\0": 1}}', "decoding.extra_body holds a NUL"),
        ('model: {name: "\\ud83d"}', "model.name holds half a character"),
        (f"output: {{data_dir: {'x' * 256}}}", "256"),
        ("engine: {base_url: 'http://h:99999/v1'}", "engine.base_url: the port"),
        ("engine: {base_url: 'http://[::1'}", "engine.base_url"),
        ("engine: {base_url: 'http://:80/v1'}", "names no host"),
        ("engine: {base_url: 'http://a..b/v1'}", "no host name"),
        ("kv: {levels: [{base_url: 'http://h:0x1/'}]}", "the port"),
        ("bench: {metrics_url: 'h:80/metrics'}", "bench.metrics_url"),
        ("engine: {headers: {Content-Length: '5'}}", "Content-Length is set by kvt itself"),
        ("engine: {headers: {host: h}}", "host is set by kvt itself"),
        ("engine: {headers: {Transfer-Encoding: chunked}}", "Transfer-Encoding is set by kvt itself"),
        ('engine: {headers: {"X-A\\r\\nX-B": c}}', "no name of a header"),
        ('engine: {headers: {X-A: "b\\r\\nX-C: d"}}', "the value of X-A holds a line break"),
        ("kv: {apply: {via: launch, command: x, env: {A=B: c}}}", "no name of a variable"),
        ("limits: {requests_per_minute: .inf}", "null switches it off"),
        ("limits: {requests_per_minute: 1e-300}", "greater than or equal to 0.001"),
        ("limits: {concurrency: 100000000}", "less than or equal to 100000"),
        ("binning: {n_bins: 1000000000}", "less than or equal to 1000"),
        ("decoding: {temperature: 1e400}", "decoding.temperature: Input should be a finite number"),
        ("decoding: {temperature: 1.0e+400}", "decoding.temperature is no finite number"),
        ("decoding: {extra_body: {a: .nan}}", "decoding.extra_body.a is no finite number"),
        ("decoding: {max_tokens: 99999999999999999999999}", "beyond 64 bits"),
        ("decoding: {max_tokens: 1000000000000}", "less than or equal to 1000000000"),
        ("engine: {timeouts: {total_s: 1e300}}", "engine.timeouts.total_s"),
        ("analysis: {seed: -1}", "analysis.seed"),
    ],
)
def test_what_no_run_could_use_is_refused_by_its_key(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(content, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(ConfigError) as error:
        load_settings(file, environ={})
    assert says in str(error.value)
    assert str(file) in str(error.value)
    assert time.process_time() - began < LONGEST_S


def test_what_people_write_stays_a_config(tmp_path: Path) -> None:
    file = tmp_path / "fine.yaml"
    file.write_text(
        "\ufeffengine: {base_url: 'https://u:p@[::1]:8443/v1/?api-version=1', headers: {X-A: 'b\tc'}}\n"
        "limits: {requests_per_minute: null, concurrency: 64}\n"
        "decoding: {extra_body: &more {top_k: 3, day: '2024-01-01'}}\n"
        "bench: {body: {<<: *more, min_p: 0.1}}\n",
        encoding="utf-8",
    )
    settings = load_settings(file, ["decoding.extra_body.top_k=5", "engine.ca_file=a/b.pem"], environ={})
    assert settings.engine.base_url == "https://u:p@[::1]:8443/v1/?api-version=1"
    assert settings.decoding.extra_body == {"top_k": 5, "day": "2024-01-01"}
    assert settings.bench.body == {"top_k": 3, "day": "2024-01-01", "min_p": 0.1}


def test_variables_without_an_end_are_text_and_cost_nothing(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("prompt: {system: '" + "${A:-" * 50_000 + "'}")
    began = time.process_time()
    assert load_settings(file, environ={"A": "b"}).prompt.system == "${A:-" * 50_000
    assert time.process_time() - began < LONGEST_S


def test_a_device_and_an_env_file_that_is_no_text_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        load_settings(Path("/dev/zero"), environ={})
    monkeypatch.chdir(tmp_path)
    Path(".env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigError, match=r"\.env: it can't be read"):
        load_settings(None, environ={})
