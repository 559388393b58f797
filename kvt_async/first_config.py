"""A first config for a server of one's own: five answers, and how a shipped recipe applies a budget, in one file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import shipped_configs
from kvt_async.data.tokens import APPROX, REFERENCE

NEEDLES, ALL_OF_RULER = "needles", "ruler"
NEEDLE_TASK = "niah_multikey_1"
LAUNCHED_URL = "http://127.0.0.1:0/v1"  # port 0: kvt chooses a free one for the server that it starts


@dataclass(frozen=True, slots=True)
class ServerKind:
    """How budgets reach a kind of server. `recipe`: the shipped experiment that shows it; None: `lines` do.
    `is_started`: kvt starts a server for each budget, so none has to run."""

    says: str
    recipe: str | None = None
    lines: str = ""
    is_started: bool = False


_KVT = """\
kv:
  policy: snapkv                 # also streaming_llm, random, ...: docs/SERVE.md
  budgets: [1.0, 0.5, 0.2, 0.1]  # 1.0 = full cache; how a budget is sent to `kvt serve` is the default of kv.apply
"""
_BODY = """\
kv:
  policy: mine                   # your name for what the server does with a budget
  budgets: [1.0, 0.5, 0.2]       # fractions kept; 1.0 = full cache
  apply:
    via: body
    body: {kv_budget: "{budget}"}   # the field that YOUR server reads; also {keep_tokens} {compression_ratio} {policy}
    full_body: {}                # at full cache nothing is sent
  evidence: {}                   # where the server says what it applied, e.g. {usage: kv.kept_fraction}
"""
_LAUNCH = """\
kv:
  policy: mine                   # your name for what differs between the servers
  unit: bits
  levels:
    - {policy: full, params: {dtype: f16}}
    - {budget: 8, params: {dtype: q8}}
    - {budget: 4, params: {dtype: q4}}
  apply:
    via: launch                  # the command of YOUR server, started once per level
    command: my-server --model {model} --host {host} --port {port} --kv-cache-dtype {params.dtype}
    health_url: http://{host}:{port}/health
  evidence: {}                   # where the server says what it applied, e.g. {metric: NAME} or {log: PATTERN}
"""
ENGINES: Mapping[str, ServerKind] = {
    "none": ServerKind("any server: it takes no budget, so kvt sends less of the prompt instead", "recipe-hosted"),
    "kvt": ServerKind("kvt serve: a field of each request", lines=_KVT),
    "vllm": ServerKind("vLLM, started by kvt once per KV data type", "recipe-vllm-kv-dtype", is_started=True),
    "sglang": ServerKind("SGLang, started by kvt once per KV data type", "recipe-sglang", is_started=True),
    "llama.cpp": ServerKind("llama-server, started by kvt once per KV data type", "recipe-llama-cpp", is_started=True),
    "tensorrt-llm": ServerKind("trtllm-serve, started by kvt once per cap", "recipe-tensorrt-llm", is_started=True),
    "openvino": ServerKind("OpenVINO Model Server, started by kvt once per cap", "recipe-openvino", is_started=True),
    "transformers": ServerKind("transformers serve: a field of each request", "recipe-transformers"),
    "kvcompress": ServerKind("vllm-kvcompress: fields of each request", "recipe-kvcompress"),
    "body": ServerKind("another server that takes a field in each request", lines=_BODY),
    "launch": ServerKind("another server, started by kvt once per budget", lines=_LAUNCH, is_started=True),
}


@dataclass(frozen=True, slots=True)
class FilledBlanks:
    """The five blanks, filled. `engine` is a name in ENGINES, `data` a shipped task or the path of a .jsonl file."""

    base_url: str
    model: str
    data: str
    tokenizer: str
    engine: str


def engine_named(name: str) -> ServerKind:
    """The engine of that name, whatever its case and hyphens. Raises ConfigError."""
    by_letters = {_letters(known): engine for known, engine in ENGINES.items()}
    if (engine := by_letters.get(_letters(name))) is None:
        raise ConfigError(
            f"no way of applying a budget is called {name!r}",
            where="--apply",
            do=f"Choose one of {', '.join(ENGINES)}.",
        )
    return engine


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def launched_url(engine: ServerKind) -> str:
    """The base URL of a server that kvt starts: its recipe's, for not every engine's paths begin with /v1."""
    return _recipe(engine).base_url or LAUNCHED_URL


def default_data(engine: ServerKind, model: str) -> str:
    """A task that is made here: the reference model knows its own words only."""
    return "multikey" if engine is ENGINES["kvt"] and model == REFERENCE else NEEDLES


def default_tokenizer(model: str) -> str:
    """What can be known without asking anybody: the reference model's own, the one beside a model on this disk."""
    if model == REFERENCE:
        return REFERENCE
    folder = Path(model)
    return model if folder.is_absolute() and (folder / "tokenizer.json").is_file() else APPROX


def config_text(answers: FilledBlanks, path: Path) -> str:
    """The YAML of a config named after its file. Raises ConfigError: unknown engine or task, or a missing file."""
    engine = engine_named(answers.engine)
    group = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).strip("_-") or "my"
    head = [
        "# Written by `kvt init`. Only what differs from the defaults stands here; every key with its meaning is in",
        "# docs/CONFIGS.md. A secret belongs into the environment or .env, never into this file.",
        f"experiment: {{exp_group_id: {group}}}   # results lie in runs/{group}",
        dataset_lines(answers.data),
        f"tokenizer: {{name: {_quoted(answers.tokenizer)}}}   # {_about_tokenizer(answers.tokenizer)}",
        f"model: {{name: {_quoted(answers.model)}}}",
    ]
    recipe = _recipe(engine)
    extras: dict[str, Any] = {**recipe.engine, "base_url": answers.base_url}
    entries = ", ".join(f"{key}: {_quoted(value)}" for key, value in extras.items())
    head.append(f"engine: {{{entries}}}   # the API key is read from the variable OPENAI_API_KEY")
    limit = recipe.concurrency or 8
    tail = [
        "# decoding: {max_tokens: 64}   # by default as long as the task is published with, else 256",
        f"limits: {{concurrency: {limit}}}   # requests in flight; a hosted API: also requests_per_minute",
        "analysis: {margin: 0.05}   # the loss that you would accept, in score; decide it before you look",
    ]
    return "\n".join([*head, *recipe.header, recipe.kv.rstrip(), *tail]) + "\n"


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What is taken from a shipped recipe: its comments, its `kv` as it is written, and what its engine needs."""

    header: list[str]
    kv: str
    engine: dict[str, Any]
    concurrency: int | None
    base_url: str | None = None


def _recipe(engine: ServerKind) -> _Recipe:
    if engine.recipe is None:
        about = f"# How a budget reaches the server: {engine.says}. More: docs/KV_BUDGETS.md"
        return _Recipe(["", about], engine.lines, {}, None)
    text = (shipped_configs() / "experiments" / f"{engine.recipe}.yaml").read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    comments = text[: text.index("experiment:")].splitlines()
    section = re.search(r"^kv:.*\n(?:(?:[ ].*)?\n)*", text, re.MULTILINE)
    assert section is not None, engine.recipe
    kept = {key: value for key, value in tree["engine"].items() if key != "base_url"}
    header = ["", f"# From {engine.recipe}; more in docs/KV_BUDGETS.md:", *comments]
    paced = "requests_per_minute" in tree["limits"]
    concurrency = None if paced else tree["limits"]["concurrency"]
    return _Recipe(header, section[0], kept, concurrency, tree["engine"]["base_url"])


def dataset_lines(data: str) -> str:
    """The sections of the data: what is asked, in which lengths, and how many of each. Raises ConfigError."""
    from kvt_async.data.sources import kvtext, ruler_tasks

    if data.endswith((".jsonl", ".json")) or "/" in data:
        if not Path(data).is_file():
            raise ConfigError(
                "there is no such file", where=data, do="Give the path of a .jsonl file, or a task's name."
            )
        label = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(data).stem)
        return (
            "dataset:\n"
            '  name: jsonl   # each line: {"question": ..., "context": ..., "answers": [...]}; docs/DATA.md\n'
            f"  path: {_quoted(data)}\n"
            f"  task: {_quoted(label)}   # your label\n"
            "  params: {metric: f1}   # how an answer is scored\n"
            "binning: {n_bins: 3, n_per_bin: 40}   # 3 bins of length, at most 40 examples each\n"
            "sampling: {strategy: uniform}"
        )
    if data in kvtext.TASKS:
        return (
            f"dataset: {{name: kvtext, task: {data}, params: {{contexts: 200, min_tokens: 128, max_tokens: 2048}}}}\n"
            "binning: {n_bins: 5, n_per_bin: 40}   # 5 bins of length, 40 examples each\n"
            "sampling: {strategy: uniform}"
        )
    task = {NEEDLES: NEEDLE_TASK, ALL_OF_RULER: "all"}.get(data, data)
    if task != "all" and task not in ruler_tasks.TASKS:
        names = [NEEDLES, ALL_OF_RULER, *ruler_tasks.TASKS, *kvtext.TASKS]
        raise ConfigError(
            f"{data!r} is neither a task that is made here nor a .jsonl file",
            where="--data",
            do=f"Tasks: {', '.join(names)}. Others, which are downloaded, are in `kvt tasks`: name one in the file.",
        )
    return (
        f"dataset: {{name: ruler, task: {task}, params: {{lengths: [1024, 2048, 4096], per_length: 40}}}}   # tokens\n"
        "binning: {n_bins: 3, n_per_bin: 40}   # a bin of each length, 40 examples each\n"
        "sampling: {strategy: uniform}"
    )


def _about_tokenizer(name: str) -> str:
    if name == APPROX:
        return "lengths are estimates; exact with the model's tokenizer.json or hub id"
    return "a tokenizer.json, a folder with one, a hub id, or approx:chars/4"


def _quoted(value: object) -> str:
    """A value as YAML takes it for what it is, whatever its letters."""
    return orjson.dumps(value).decode()
