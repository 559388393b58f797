"""Load a causal LM that kvpress can hook, and put it back as it was after every request.

torch, transformers and kvpress are the extra `kvpress`: imported here and beside, never by the numpy server.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.packaged_models import packaged_model
from kvt_async.data.chat_template import PROBE_TOOL, shows_probe
from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.prompt_format import MARK, NO_TOOLS, ChatTemplate, Message, Tool
from kvt_async.serve.tokenizer import Tokenizer

EXTRA = ("torch", "transformers", "kvpress")
INSTALL = "pip install 'kvt[kvpress]'   (in a checkout: pip install -e '.[kvpress]')"
DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in evaluation mode on one device, and its fast tokenizer."""

    model: Any
    tokenizer: Any
    attentions: Sequence[Any]  # each layer's attention module, in order
    name: str

    @property
    def device(self) -> Any:
        return self.model.device


def require_extra() -> None:
    """Raise MissingPrerequisiteError where the extra isn't installed; loads nothing."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise MissingPrerequisiteError(
            f"the kvpress backend needs {', '.join(EXTRA)}; missing here: {', '.join(missing)}",
            where="--backend kvpress",
            do=INSTALL,
        )


def load(name: str, *, device: str, dtype: str) -> Loaded:
    """`name`: a folder, a packaged model's name, or one on the Hugging Face hub. `device` and `dtype` may be auto.

    Raises MissingPrerequisiteError without the extra, ConfigError for what can't be loaded or hooked.
    """
    require_extra()
    if dtype not in DTYPES:
        raise ConfigError(f"{dtype!r} is no dtype", where="--dtype", do=f"Choose one of {', '.join(DTYPES)}.")
    try:
        import kvpress  # patches transformers' attention functions, before any model is built
        import torch
        import transformers
    except ImportError as problem:
        raise MissingPrerequisiteError(
            f"the kvpress backend can't be imported: {problem}", where="--backend kvpress", do=INSTALL
        ) from None
    logging.getLogger("kvpress").setLevel(logging.ERROR)  # its presses repeat their remarks at every request
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    place = _device(torch, device)
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise ConfigError("no such folder", where=f"--model {name}", do="Name a model folder, or a model on the hub.")
    packaged = packaged_model(name)
    source = str(packaged or name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        wanted = dtype if dtype != "auto" or place.type != "cpu" else "float32"
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=wanted, attn_implementation="sdpa")
        model = model.to(place).eval().requires_grad_(False)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"{name} does not fit into the memory of {place}",
            where="--model",
            do="Choose a smaller model, --dtype bfloat16, or another --device.",
        ) from None
    except (OSError, ValueError, ImportError, KeyError) as problem:
        raise ConfigError(
            f"{name} can't be loaded: {_first_line(problem)}",
            where="--model",
            do="Name a folder or a hub model with config.json, weights and tokenizer.json.",
        ) from None
    if not isinstance(model, kvpress.presses.base_press.SUPPORTED_MODELS):
        print(f"warning: kvpress was not tested with {type(model).__name__}", file=sys.stderr)
    if not tokenizer.is_fast:
        raise ConfigError("it has no fast tokenizer (tokenizer.json)", where=f"--model {name}")
    is_folder = packaged is None and Path(name).is_dir()
    return Loaded(model, tokenizer, _attentions(model, name), Path(name).resolve().name if is_folder else name)


def _device(torch: Any, device: str) -> Any:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as problem:
        raise ConfigError(
            f"{device!r} can't be used: {_first_line(problem)}", where="--device", do="Try auto, cpu, cuda or cuda:0."
        ) from None
    return place


def _attentions(model: Any, name: str) -> list[Any]:
    """The modules that kvpress hooks; ConfigError for an architecture that is built otherwise."""
    body = getattr(getattr(model, "model", None), "language_model", None) or getattr(model, "model", None)
    attentions = [getattr(layer, "self_attn", None) for layer in getattr(body, "layers", [])]
    if not attentions or None in attentions or not hasattr(body, "rotary_emb"):
        raise ConfigError(
            f"{type(model).__name__} has no model.layers[*].self_attn with rotary positions, which kvpress hooks",
            where=f"--model {name}",
            do="Use a Llama, Mistral, Phi-3, Qwen2, Qwen3 or Gemma-3 style model.",
        )
    return attentions


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]


class HubTokenizer(Tokenizer):
    """The fast tokenizer that transformers loaded, with what it puts around a plain text."""

    def __init__(self, tokenizer: Any) -> None:
        import tokenizers

        self._adopt(tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))


class HubTemplate(ChatTemplate):
    """The model's own chat template, rendered by transformers; texts are content parts where it reads only those."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        if self._tokenizer.chat_template is None:
            raise ApiError("This model has no chat template; use /v1/completions", code="no_chat_template")
        if tools and not self._takes_tools:
            raise ApiError(NO_TOOLS, param="tools")
        return self._rendered(messages, tools, in_parts=self._in_parts)

    @cached_property
    def _takes_tools(self) -> bool:
        """Whether the template writes tools; True where it refuses to say."""
        try:
            return shows_probe(self._rendered([Message("user", "x")], [PROBE_TOOL], in_parts=self._in_parts))
        except ApiError:
            return True

    @cached_property
    def _in_parts(self) -> bool:
        for in_parts in (False, True):
            try:
                if MARK in self._rendered([Message("user", MARK)], in_parts=in_parts):
                    return in_parts
            except ApiError:  # a lone user message says nothing here
                return in_parts
        raise ApiError("The chat template renders nothing of a user's message", param="messages")

    def _rendered(self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, in_parts: bool) -> str:
        turns = [
            {"role": m.role, "content": [{"type": "text", "text": m.content}] if in_parts else m.content}
            for m in messages
        ]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns,
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=not messages[-1].is_open,
                    continue_final_message=messages[-1].is_open,
                )
            )
        except Exception as problem:  # a template is a program of somebody else's: it may fail in any way
            raise ApiError(f"The chat template refuses these messages: {problem}", param="messages") from None


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """Whatever happens inside, every module ends with the attributes, submodules and hooks it had before.

    kvpress takes its hooks off itself, but leaves rotary embeddings, masks and wrapped forwards behind; a press that
    fails half way leaves more.
    """
    before = [
        (module, dict(vars(module)), {key: dict(v) for key, v in vars(module).items() if isinstance(v, dict)})
        for module in model.modules()
    ]
    attention = model.config._attn_implementation
    try:
        yield
    finally:
        for module, attributes, tables in before:
            for key, table in tables.items():
                _put_back(attributes[key], table)
            _put_back(vars(module), attributes)
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)


def _put_back(live: dict[str, Any], kept: dict[str, Any]) -> None:
    if len(live) == len(kept) and all(live.get(key) is value for key, value in kept.items()):
        return
    live.clear()
    live.update(kept)
