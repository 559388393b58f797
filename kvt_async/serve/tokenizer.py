"""Text to tokens and back: what a stream shows, token by token, adds up to what one decode of all would say."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.model_files import ModelFiles
from kvt_async.serve.weights import Ints

REMEMBERED_CHARS = 32 << 20  # encoded prompts kept for their other budgets
PROBED_CHARS = 16  # a token: where a text has more, its beginning is counted first. Prose has 4 or 5


@dataclass(frozen=True, slots=True)
class Encoded:
    ids: Ints
    ends: Ints  # per token: where it ends in the text, in characters
    starts: Ints


class Tokenizer:
    """tokenizer.json, with the last prompts remembered. Several threads may encode."""

    def __init__(self, files: ModelFiles) -> None:
        import tokenizers

        path = files.path / "tokenizer.json"
        if (data := files.read("tokenizer.json")) is None:
            raise ConfigError("no such file", where=str(path), do="Name a folder with tokenizer.json, or a .gguf file.")
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(data)
        except Exception as problem:  # tokenizers raises plain Exception for a bad file
            raise ConfigError(f"can't be read: {problem}", where=str(path), do="Repair the model folder.") from None
        self._adopt(tokenizer)

    def _adopt(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._lock = threading.Lock()
        self._remembered: OrderedDict[tuple[str, bool], Encoded] = OrderedDict()
        self._chars = 0
        # Between two words stands a character that some tokenizers give no token.
        self.longest = 1 + max(map(len, tokenizer.get_vocab(with_added_tokens=True)), default=1)

    def remembered(self, text: str, *, special: bool) -> Encoded | None:
        """What `encode` would give at once, or None where it has work to do."""
        return self._remembered.get((text, special))

    def encode(self, text: str, *, special: bool) -> Encoded:
        """Token ids and offsets. `special`: add what the tokenizer puts around a plain text, as completions do."""
        remembered = self._remembered.get((text, special))
        if remembered is not None:
            return remembered
        # A batch of one: `encode` would hold the interpreter, and the event loop with it.
        encoding = self._tokenizer.encode_batch([text], add_special_tokens=special)[0]
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        encoded = Encoded(np.array(encoding.ids, dtype=np.int64), offsets[:, 1], offsets[:, 0])
        with self._lock:
            if (text, special) not in self._remembered:
                self._remembered[(text, special)] = encoded
                self._chars += len(text)
            while self._chars > REMEMBERED_CHARS:
                (oldest, _), _ = self._remembered.popitem(last=False)
                self._chars -= len(oldest)
        return encoded

    def fits(self, text: str, most: int) -> bool:
        """False where a text is surely more than `most` tokens, at a price that its length doesn't matter to."""
        if len(text) > most * self.longest:
            return False
        if len(text) <= most * PROBED_CHARS:
            return True
        words = text[: most * PROBED_CHARS].rsplit(None, 1)[0]  # of a word that is cut nobody knows the tokens
        return len(self._tokenizer.encode_batch([words], add_special_tokens=False)[0].ids) <= most

    def decode(self, ids: list[int]) -> str:
        """Words joined as the tokenizer joins them; special tokens left out."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


class Detokenizer:
    """Tokens to text pieces: each what the decoded text has grown by, held back while a character is incomplete."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._said = 0

    def feed(self, token: int) -> str:
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd"):
            return ""
        piece = text[self._said :]
        self._said = len(text)
        return piece

    def flush(self) -> str:
        """What was held back and never completed."""
        text = self._tokenizer.decode(self._ids)
        piece = text[self._said :]
        self._said = len(text)
        return piece


class StopWatch:
    """Ends the text before the first stop string, holding back what may become one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string was reached."""
        if not self._stops:
            return piece, False
        text = self._held + piece
        places = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if places:
            self.stopped = True
            return text[: min(places)], True
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def flush(self, piece: str = "") -> str:
        """The end of a text in which no stop string came any more."""
        shown, stopped = self.feed(piece)
        rest, self._held = ("" if stopped else self._held), ""
        return shown + rest


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
