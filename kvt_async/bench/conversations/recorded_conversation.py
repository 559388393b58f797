"""A conversation as a file has it: its turns with their texts, or with their lengths alone."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileTurn:
    """`output_tokens`, `think_s` (before it): where the file says them."""

    user: str
    reply: str | None
    output_tokens: int | None = None
    think_s: float | None = None
    input_tokens: int | None = None  # its text is to be made, so long; None: `user` is its text


@dataclass(frozen=True, slots=True)
class FileConversation:
    system: str | None
    turns: tuple[FileTurn, ...]
    line: int  # of the file, from 1; of an array its entry
