"""What the HTTP side asks of an engine; the numpy reference and kvpress both give it."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kvt_async.serve.cache import PrefillStore
from kvt_async.serve.catalogue import Catalogue
from kvt_async.serve.prompt_format import Message, Tool
from kvt_async.serve.tokenizer import Tokenizer
from kvt_async.serve.work import Finished, Text, Work


class Template(Protocol):
    """Messages to prompt text; ApiError (400) where that can't be done."""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str: ...

    def context_end(
        self, messages: Sequence[Message], rendered: str, context_chars: int, tools: Sequence[Tool] = ()
    ) -> int: ...

    def messages_end(self, messages: Sequence[Message], rendered: str, n: int, tools: Sequence[Tool] = ()) -> int: ...


@dataclass(frozen=True, slots=True)
class About:
    """Facts of an engine that never change while it serves."""

    model_name: str  # what requests call it
    max_tokens: int  # prompt and completion together
    vocab_size: int
    cache_dtype: str
    token_bytes: int  # keys and values of one token, all layers and KV heads
    splits_tokens: bool = False  # a context that ends inside a token ends before it; False: such a request is refused
    version: Mapping[str, str] = field(default_factory=dict)  # more for /version


class Backend(Protocol):
    """One model and its cache. One thread calls `generate`; the rest is read by the event loop."""

    about: About
    tokenizer: Tokenizer
    policies: Catalogue
    store: PrefillStore  # kept prefills; one of 0 bytes keeps none

    @property
    def template(self) -> Template: ...

    def generate(self, work: Work) -> Generator[Text | Finished, None, None]:
        """Yield the text of each token as it is made, then Finished; ApiError where this request can't be done.

        Closing the iterator stops the work and leaves the engine as it was before.
        """
        ...
