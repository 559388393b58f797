"""A small real model behind an OpenAI-compatible API, with a KV cache that really evicts; or any model on kvpress."""

from collections.abc import Sequence
from dataclasses import dataclass

from kvt_async.contract.errors import ConfigError


@dataclass(frozen=True, slots=True)
class KvpressOptions:
    """What `kvt serve --backend kvpress` takes beside the address."""

    model: str  # a folder or a name on the Hugging Face hub
    press: str | None = None  # policy of requests that give a budget and name none
    device: str = "auto"
    dtype: str = "auto"  # the checkpoint's own; float32 on a CPU


@dataclass(frozen=True, slots=True)
class ServerRoom:
    """What a server may hold: prefills kept for later requests, in which whole prompts are found and, in blocks of
    `prefix_block` tokens (0: not), their beginnings; and requests that wait."""

    prefill_cache_mb: int = 1024
    prefix_block: int = 0
    max_queue: int = 4096


ROOM = ServerRoom()


def chosen_backend(
    backend: str, model: str | None, press: str | None, device: str | None, dtype: str | None
) -> KvpressOptions | None:
    """None for the numpy engine. Raises ConfigError for options that belong to the other backend."""
    own = {"--press": press, "--device": device, "--dtype": dtype}
    if backend == "numpy":
        for option, value in own.items():
            if value is not None:
                raise ConfigError(
                    f"{option} belongs to the kvpress backend",
                    where=f"{option} {value}",
                    do="Add --backend kvpress.",
                )
        return None
    if backend != "kvpress":
        raise ConfigError(f"there is no backend {backend!r}", where="--backend", do="Choose numpy or kvpress.")
    if model is None:
        raise ConfigError(
            "the kvpress backend needs --model",
            where="--backend kvpress",
            do="For example --model meta-llama/Llama-3.1-8B-Instruct, or a folder.",
        )
    if model.endswith(".gguf"):
        raise ConfigError(
            "the kvpress backend reads no GGUF file",
            where=f"--model {model}",
            do="Name the folder that it was made from, or leave --backend kvpress out.",
        )
    return KvpressOptions(model, press, device or "auto", dtype or "auto")


def launch(
    host: str,
    port: int,
    *,
    model: str | None = None,
    room: ServerRoom = ROOM,
    kvpress: KvpressOptions | None = None,
    plugins: Sequence[str] = (),
) -> None:
    """What `kvt serve` calls: serve until SIGTERM or SIGINT. Nothing heavy is loaded before. `plugins`: files with
    policies of the user's own.

    Raises ConfigError, and MissingPrerequisiteError where the kvpress backend's libraries aren't installed.
    """
    from kvt_async.serve.process import load_plugins, serve  # first: it chooses numpy's threads

    load_plugins(plugins)
    serve(host, port, model=model, room=room, kvpress=kvpress)
