"""One secret in every place of a config and of a reply: no command leaves a trace of it on disk or on the screen."""

import json
import os
import sqlite3
import sys
import threading
import types
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import dump_yaml, load_settings
from kvt_async.contract.settings import Settings
from kvt_async.contract.variables import PLACES
from tests.forked_kvt import run_kvt
from tests.servers.echoes import echo_server, echoes, traces
from tests.worlds import free_port, write_examples

ROOT = Path(__file__).parents[2]
KEY, TOKEN = "sk-live-0123456789abcdef+/?&", "tok-9876543210-zyxwvu"

# ------------------------------------------------------------------ every key of the config

COMPANIONS: dict[str, dict[str, Any]] = {  # what a key needs beside it to be valid
    "kv.apply.command": {"via": "launch"},
    "kv.apply.env": {"via": "launch", "command": "serve"},
    "kv.apply.health_url": {"via": "launch", "command": "serve"},
    "kv.apply.body": {"via": "body"},
    "kv.apply.full_body": {"via": "body", "body": {}},
    "kv.apply.endpoints": {"via": "endpoint"},
    "kv.policies": {"policy": "snapkv"},
    "check": {"name": "n", "kind": "no_failures"},
}
URLS = ("engine.base_url", "kv.levels.base_url", "kv.apply.endpoints", "kv.apply.health_url", "bench.metrics_url")


def text_keys(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(keys, shape) of every key that takes text: plain, in a list, in a mapping; sections in lists have a key []."""
    for name, field in model.model_fields.items():
        yield from _keys_of(field.annotation, (*at, name))


def _keys_of(annotation: object, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from text_keys(annotation, at)
    elif annotation is str or annotation is typing.Any or (origin is typing.Literal and isinstance(inner[0], str)):
        yield at, "plain"
    elif origin in (typing.Union, types.UnionType, typing.Annotated):
        for one in inner:
            yield from _keys_of(one, at)
    elif origin is list:
        yield from _keys_of(inner[0], (*at, "[]"))
    elif origin is dict:
        yield from _keys_of(inner[1], (*at, "x"))


def override_of(keys: tuple[str, ...], text: str) -> str:
    """--override for that key; where a list or a mapping of the user's begins, the whole of it."""
    dotted = ".".join(key for key in keys if key not in ("[]", "x"))
    companions = next((more for key, more in COMPANIONS.items() if dotted.startswith(key)), {})
    value: Any = text
    head = keys[:2] if keys[0] not in ("check", "tasks", "plugins") else keys[:1]
    for key in reversed(keys[len(head) :]):
        value = [value] if key == "[]" else {key: value}
    if companions:
        inner: Any = value[0] if isinstance(value, list) else value
        inner = companions | inner if isinstance(inner, dict) else inner
        value = [inner] if isinstance(value, list) else inner
    return f"{'.'.join(head)}={json.dumps(value)}"


TEXT_KEYS = sorted({keys for keys, _ in text_keys(Settings)})


def test_the_settings_have_the_keys_that_the_table_is_made_of() -> None:
    assert len(TEXT_KEYS) > 50
    assert {("model", "name"), ("engine", "headers", "x"), ("kv", "levels", "[]", "base_url", "[]")} <= set(TEXT_KEYS)


@pytest.mark.parametrize("keys", TEXT_KEYS, ids=".".join)
@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "MY_TOKEN"])
def test_a_secret_in_a_key_of_the_config_is_refused_or_masked(keys: tuple[str, ...], variable: str) -> None:
    plain = tuple(key for key in keys if key not in ("[]", "x"))
    text = f"${{{variable}}}"
    text = f"http://u:{text}@127.0.0.1/v1" if ".".join(plain) in URLS else text
    env = {"OPENAI_API_KEY": TOKEN} | {variable: TOKEN}
    if not any(plain[: len(place)] == place for place in PLACES):
        with pytest.raises(ConfigError) as error:
            load_settings(None, [override_of(keys, text)], environ=env)
        assert TOKEN not in str(error.value)
        return
    settings = load_settings(None, [override_of(keys, text)], environ=env)
    assert TOKEN in settings.secrets.values
    assert TOKEN not in dump_yaml(settings)


# ------------------------------------------------------------------ every command, every reply

CONFIG: dict[str, Any] = {
    "experiment": {"exp_group_id": "g"},
    "dataset": {"name": "jsonl", "task": "qa", "path": "d.jsonl"},
    "tokenizer": {"name": "approx:chars/4"},
    "model": {"name": "m"},
    "binning": {"n_bins": 1, "n_per_bin": 120},
    "kv": {"budgets": [1.0, 0.5], "control_repeats": 0},
    "decoding": {"extra_body": {"user": "${TOK}", "deep": [{"k": "x ${OPENAI_API_KEY}"}]}},
    "limits": {"concurrency": 2, "retry": {"max_attempts": 1}},
    "bench": {"body": {"tag": "${TOK}"}, "scrape_interval_s": 0.1, "drain_s": 2},
    "analysis": {"charts": False, "resamples": 200},
}
BODY = {
    "via": "body",
    "body": {"kv": {"budget": "{budget}", "auth": "${OPENAI_API_KEY}"}},
    "full_body": {"auth": "${OPENAI_API_KEY}"},
}
# What reads a group. All of them with KVT_TEST_EVERY_COMMAND=1 (make test-secrets): a command takes a second to begin.
READING = ["all --partial", "show --sample 2", "export out.csv", "status", "validate --print-config"]
if os.environ.get("KVT_TEST_EVERY_COMMAND"):
    READING += ["resolve", "status --json", "score", "analyze --partial", "report --partial", "check", "verify", "plan"]
    READING += ["show --sample 2 --json", "show --sample 2 --full", "export out.parquet", "validate --deep"]
    READING += ["bench report --override experiment.exp_group_id=b", "sweep --retry-failed --allow-dead-knob", "run"]


class Watcher:
    """Reads every file in a folder again and again, so that what lies there for a moment is seen too."""

    def __init__(self, folder: Path, marks: list[bytes]) -> None:
        self.folder, self.marks, self.found = folder, marks, set[str]()
        self.largest: Counter[str] = Counter()  # bytes of a file of that name that were read
        self._read: dict[Path, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.look()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.look()

    def look(self) -> None:
        paths = (Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        for path in paths:  # unlike rglob, walk goes on where a folder is gone before it is read
            try:
                state = (path.stat().st_mtime_ns, path.stat().st_size)
                if not path.is_file() or self._read.get(path) == state:
                    continue
                data = path.read_bytes()
            except OSError:  # gone again
                continue
            self._read[path] = state
            self.largest[path.name] = max(self.largest[path.name], len(data))
            self.found |= {f"{path.name}: {mark!r}" for mark in self.marks if mark in data}


def at_work(folder: Path, config: dict[str, Any], *commands: list[str]) -> dict[str, int]:
    """Exit codes of the commands, run in `folder`. No file there and nothing they print holds a trace of a secret."""
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "c.yaml").write_text(json.dumps(config), encoding="utf-8")
    (folder / ".env").write_text(f"TOK={TOKEN}\n", encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("KVT__")}
    env |= {"OPENAI_API_KEY": KEY, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}  # what is launched is ours
    marks = [*traces(KEY), *traces(TOKEN)]
    codes = {}
    for command in commands:
        words = [*command, "-c", "c.yaml"]
        done = run_kvt(words, folder, env)
        shown = done.stdout + done.stderr
        assert "Traceback" not in shown, (words, shown)
        assert not any(mark in shown.encode() for mark in marks), (words, shown)
        codes[" ".join(command)] = done.returncode
    return codes


def no_trace_in(folder: Path) -> Watcher:
    return Watcher(folder, [*traces(KEY), *traces(TOKEN)])


@pytest.mark.parametrize("transport", ["aiohttp", "lean"])
def test_no_command_leaves_a_trace_of_a_secret(tmp_path: Path, transport: str) -> None:
    n = 2 * len(echoes(KEY))
    write_examples(tmp_path / "d.jsonl", n)
    with echo_server(KEY, TOKEN) as (url, sent):
        engine = {
            "transport": transport,
            "base_url": url.replace("://", "://u:${TOK}@") + "?version=1&sig=${TOK}",
            "headers": {"X-A": "${TOK}", "Authorization": "Bearer ${OPENAI_API_KEY}"},
        }
        config = {
            **CONFIG,
            "engine": engine,
            "binning": {"n_bins": 1, "n_per_bin": n},
            "kv": {**CONFIG["kv"], "apply": BODY, "evidence": {"usage": "kv.kept_fraction"}},
        }
        hidden = tmp_path / ".env"
        with no_trace_in(tmp_path) as watcher:
            watcher._read[hidden] = (0, 0)
            prepared = at_work(tmp_path, config, ["prepare"])
            sweep = at_work(tmp_path, config, ["sweep", "--allow-dead-knob"])
            assert watcher.largest["kv_transition.sqlite-wal"] > 50_000  # it was looked at before it was emptied
            more = [words.split() for words in (READING if transport == "aiohttp" else READING[:1])]
            bench = ["bench", "--concurrency", "2", "--requests", "40", "--override", "experiment.exp_group_id=b"]
            read = at_work(tmp_path, config, bench, *more)
        assert set(echoes(KEY)) <= set(sent)
    assert {name for name in watcher.found if not name.startswith(".env")} == set()
    assert (prepared, sweep) == ({"prepare": 0}, {"sweep --allow-dead-knob": 4})
    assert read["all --partial"] == 0


def test_a_launched_server_that_prints_what_it_was_started_with_leaves_no_trace(tmp_path: Path) -> None:
    write_examples(tmp_path / "d.jsonl", 4)
    apply = {
        "via": "launch",
        "command": f"{sys.executable} -m tests.servers.echoes {{port}} '${{OPENAI_API_KEY}}' ${{TOK}}",
        "health_url": "http://u:${TOK}@127.0.0.1:{port}/v1/models",
        "env": {"A_TOKEN": "${TOK}", "B": "x ${OPENAI_API_KEY}"},
    }
    config = {
        **CONFIG,
        "engine": {"base_url": f"http://127.0.0.1:{free_port()}/v1"},
        "kv": {**CONFIG["kv"], "apply": apply, "evidence": {"log": "started as (.*)"}},
        "binning": {"n_bins": 1, "n_per_bin": 4},
    }
    with no_trace_in(tmp_path) as watcher:
        at_work(tmp_path, config, ["sweep", "--allow-dead-knob"], ["all", "--partial"])
    assert {name for name in watcher.found if not name.startswith(".env")} == set()
    logs = [path.read_text() for path in (tmp_path / "runs/g/launch").iterdir()]
    assert all("***" in log for log in logs)
    assert len(logs) == 1  # both levels have one command
    commands = (
        sqlite3.connect(tmp_path / "runs/g/kv_transition.sqlite").execute("SELECT apply_json FROM runs").fetchall()
    )
    assert all("'***' ***" in command for (command,) in commands)
