"""`kvt init`: five questions about a server of one's own, the config that they make, and what comes next."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from kvt_async.contract.errors import ConfigError, InterruptedByUserError, ServerError
from kvt_async.contract.visible import visible

app = typer.Typer()
NEXT = (
    ("kvt validate -c {path}", "checks it; nothing is sent"),
    ("kvt sweep -c {path}", "sends it; the same command again goes on where it stopped"),
    ("kvt all -c {path}", "the verdict, the charts and the report"),
)


@app.command("init")
def init(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", show_default=False, help="my.yaml unless named.")] = Path(
        "my.yaml"
    ),
    base_url: Annotated[str | None, typer.Option(metavar="URL", help="Of the server: http://HOST:PORT/v1.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="As the server lists it.")] = None,
    data: Annotated[str | None, typer.Option(metavar="TASK|FILE", help="needles, ruler, vt, ... or a .jsonl.")] = None,
    tokenizer: Annotated[str | None, typer.Option(metavar="NAME", help="tokenizer.json, a folder, a hub id.")] = None,
    apply: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="How a budget reaches it: none, kvt, vllm, sglang, llama.cpp, body, launch, ..."
        ),
    ] = None,
) -> None:
    """Write a config for a server of your own: five questions, or as many options. No file is ever overwritten.

    Example: kvt init

    Example: kvt init my.yaml --base-url http://localhost:8000 --data needles --apply kvt
    """
    from kvt_async.contract.files import write_whole
    from kvt_async.first_config import (
        ENGINES,
        FilledBlanks,
        config_text,
        dataset_lines,
        default_data,
        default_tokenizer,
        engine_named,
        launched_url,
    )

    if path.exists():
        raise ConfigError("the file is there already, and is kept", where=str(path), do="Name another: kvt init FILE.")
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError("a config is a .yaml file", where=str(path), do=f"kvt init {path}.yaml")
    ask = _asked if sys.stdin.isatty() else _taken
    if apply is None and ask is _asked:
        typer.echo("How does a KV budget reach the server?")
        for name, each in ENGINES.items():
            typer.echo(f"  {name:13} {each.says}")
    apply = apply or ask("--apply", "Which of them", "none", engine_named)
    engine = engine_named(apply)
    if base_url is None and not engine.is_started:
        base_url = ask("--base-url", "Base URL", "http://localhost:8000", _server_url)
    url = launched_url(engine) if base_url is None else _server_url(base_url)
    model = model or _model(url, ask, is_started=engine.is_started)
    data = data or ask(
        "--data",
        "Data (needles, ruler, another task made here, or a .jsonl)",
        default_data(engine, model),
        dataset_lines,
    )
    tokenizer = tokenizer or ask(
        "--tokenizer", "Tokenizer (tokenizer.json, hub id, or an estimate)", default_tokenizer(model), str
    )
    write_whole(path, config_text(FilledBlanks(url, model, data, tokenizer, apply), path))
    typer.echo(visible(f"wrote {path}"))
    if tokenizer.startswith("approx:"):
        typer.echo("  Lengths are estimates: a token is taken for 4 characters. Exact: --tokenizer, the model's own.")
    typer.echo("Next:")
    for command, meaning in NEXT:
        typer.echo(visible(f"  {command.format(path=path):{len(NEXT[1][0]) + len(str(path))}} # {meaning}"))


Ask = Callable[
    [str, str, str | None, Callable[[str], object]], str
]  # option, question, default, what refuses an answer


def _asked(_option: str, question: str, default: str | None, check: Callable[[str], object]) -> str:
    """What is typed; asked again where `check` raises a ConfigError."""
    while True:
        try:
            answer = str(typer.prompt(question, default=default))
        except typer.Abort:
            raise InterruptedByUserError("stopped; nothing was written") from None
        try:
            check(answer)
        except ConfigError as error:
            typer.echo(visible(str(error)))
        else:
            return answer


def _taken(option: str, _question: str, default: str | None, _check: Callable[[str], object]) -> str:
    typer.echo(visible(f"{option} {default} is taken, as none was given"))
    return str(default)


def _model(url: str, ask: Ask, *, is_started: bool) -> str:
    """The model that the server lists, or the chosen one of several. Raises ConfigError where nothing tells it."""
    names, reason = ([], "kvt will start it") if is_started else asyncio.run(_listed(url))
    if len(names) > 1 or (names and ask is _asked):
        typer.echo(visible(f"{url} serves {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"))
    if len(names) == 1 or (names and ask is _asked):
        return ask("--model", "Model", names[0], str)
    if ask is _asked:
        typer.echo(visible(f"No list of models ({reason})."))
        return ask("--model", "Model (its name, or the path of its file)", None, str)
    why = f"the server has {len(names)}" if names else f"the server lists none: {reason}"
    raise ConfigError(
        f"no model is named, and {why}", where="--model", do="Name it: --model NAME. Nothing was written."
    )


async def _listed(url: str) -> tuple[list[str], str]:
    """(ids of /v1/models, why there are none)."""
    from kvt_async.bench.load_sender import load_sender
    from kvt_async.contract.load import load_settings
    from kvt_async.contract.urls import url_under
    from kvt_async.session.handshake import model_names

    async with load_sender(load_settings(None, [f'engine.base_url="{url}"']), [url]) as sender:
        try:
            return model_names(await sender.pages.get_json(url_under(url, "/models"), timeout_s=5)), "its list is empty"
        except ServerError as error:
            return [], error.what


def _server_url(text: str) -> str:
    """The base URL in what was typed, where nothing in it may be a secret, as the file would hold it.

    Raises ConfigError.
    """
    from kvt_async.bench.first_look import base_url

    url = base_url(text)
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        raise ConfigError(
            "the URL holds a user, a password or a query, which may be secret, and is not written into a file",
            where="--base-url",
            do="Give it without; a key is read from OPENAI_API_KEY, and ${NAME} in the file is taken from .env.",
        )
    return url
