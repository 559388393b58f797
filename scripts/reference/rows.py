"""Training rows: multi-turn chats that ask for many facts of one context, as id tensors with what is to be learned."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext_text import FACT_TOKENS, QUESTION_FORMS, Dice, ask, compose, filler_sentences

IGNORE = -100
SYSTEM_SHARE = 0.1  # rows that begin with a system text
TURN_SHARES = (0.08, 0.2, 0.35, 0.5)  # share of a row spent on turns
DENSITIES = (0.02, 0.1, 0.25, 0.5, 0.8)  # share of a context's tokens in facts
SYSTEM_TEXTS = ("you answer with the code .", "read the text and answer the question with the code only .")


Row = tuple[list[str], list[tuple[int, int]]]  # words, and where the answers stand in them


@dataclass(frozen=True)
class Batch:
    """ids and targets are [rows, length]; `answers` marks targets that are values or the <eos> after them."""

    ids: Tensor
    targets: Tensor
    answers: Tensor


def make_batch(dice: Dice, *, length: int, tokens: int, warmup_share: float) -> Batch:
    """tokens // length rows; a share of them are bare fact lists, which teach matching without filler."""
    rows = [
        _warmup_row(dice, length) if dice.unit() < warmup_share else chat_row(dice, length)
        for _ in range(max(1, tokens // length))
    ]
    return as_batch(rows, length)


def as_batch(rows: list[Row], length: int) -> Batch:
    """Rows of up to length + 1 words, filled up with padding that isn't learned."""
    padded = [text + ["<pad>"] * (length + 1 - len(text)) for text, _ in rows]
    ids = torch.tensor([[words.TOKEN_IDS[word] for word in text] for text in padded])
    answers = torch.zeros(len(rows), length + 1, dtype=torch.bool)
    for row, (_, spans) in enumerate(rows):
        for start, end in spans:
            answers[row, start:end] = True
    targets = ids[:, 1:].masked_fill(ids[:, 1:] == words.PAD, IGNORE)
    return Batch(ids[:, :-1], targets, answers[:, 1:])


def chat_row(dice: Dice, length: int) -> Row:
    """A context and as many turns as fit, each about another of its facts."""
    text = ["<bos>"]
    if dice.unit() < SYSTEM_SHARE:
        text += ["<system>", *_system_text(dice)]
    text.append("<user>")
    turn_tokens = len(QUESTION_FORMS[0].split()) + 5
    context_tokens = min(length - len(text) - turn_tokens, round(length * (1 - dice.pick(TURN_SHARES))))
    density = dice.pick(DENSITIES)
    most = min(len(words.NAMES), int((context_tokens - 3) / FACT_TOKENS))
    n_facts = max(1, min(most, round(context_tokens * density / FACT_TOKENS)))
    context_tokens = max(context_tokens, length - len(text) - n_facts * turn_tokens)  # few facts fill few turns
    passage = compose(dice, context_tokens, n_facts)
    text += passage.words
    spans: list[tuple[int, int]] = []
    for fact in dice.sample(passage.facts, n_facts):
        question = ask(dice.pick(QUESTION_FORMS), fact.name).split()
        turn = [*(["<user>"] if spans else []), *question, "<assistant>", *fact.values, "<eos>"]
        if len(text) + len(turn) > length + 1:
            break
        text += turn
        spans.append((len(text) - 3, len(text)))
    return text, spans


def _system_text(dice: Dice) -> list[str]:
    if dice.unit() < 0.5:
        return dice.pick(SYSTEM_TEXTS).split()
    return [word for sentence in filler_sentences(dice, 5 + dice.below(12)) for word in sentence]


def _warmup_row(dice: Dice, length: int) -> Row:
    """Facts without filler ("of NAME is V1 V2 ."), then questions ("of NAME ?") until the row is full."""
    names = dice.sample(words.NAMES, min(len(words.NAMES), length // 12))
    answers = {name: [dice.pick(words.VALUES), dice.pick(words.VALUES)] for name in names}
    text, spans = ["<bos>"], []
    for name in names:
        text += ["of", name, "is", *answers[name], "."]
    for name in dice.sample(names, len(names)):
        turn = ["of", name, "?", "<assistant>", *answers[name], "<eos>"]
        if len(text) + len(turn) > length + 1:
            break
        text += turn
        spans.append((len(text) - 3, len(text)))
    return text, spans
