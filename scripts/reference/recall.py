"""A variant of the reference model whose text comes back to its facts, so that they matter before any question is read.

The shipped model attends to a fact when it is asked for it and not before: a policy that must choose without the
question has nothing to go by. Here training goes on from the shipped weights, on rows where a later sentence may begin
with a value that was stated before ("V3 belongs to NAME ."): the end of every sentence has a reason to look back at
the values. Answers have four values, of which the first three are
learned: a seven-digit number of RULER's is three tokens to Llama 3.
"""

# Checked with torch installed and without; what torch leaves untyped is not ours to fix:
# mypy: disable-error-code="no-any-return, no-untyped-call"

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext_text import FACT_FORMS, QUESTION_FORMS, Dice, ask, filler_sentences
from reference.network import Llama
from reference.training import LM_SHARE, LM_WEIGHT, make_optimisers

VALUES = 4  # the first three are learned; the name of the fourth is further back than layer 0's heads look
TURN_SHARES = (0.08, 0.2, 0.35)
DENSITIES = (0.02, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Stage:
    """`mentions`: of a row's later sentences this share comes back to a fact; `hold`: share of steps before the rate
    falls; `long`: share of rows with four values instead of two."""

    seed: int
    steps: int
    tokens: int
    lengths: tuple[int, ...]
    shares: tuple[float, ...]
    mentions: tuple[float, ...]
    mention_weight: float
    rates: tuple[float, float]
    hold: float
    long: float = 1.0


STAGES = (
    Stage(
        1, 260, 4096, (128, 256, 512, 1024), (0.2, 0.3, 0.3, 0.2), (0, 0.15, 0.4), 0.3, (2e-3, 7e-4), hold=0.0, long=0.8
    ),
    Stage(2, 260, 2048, (128, 256), (0.5, 0.5), (0.1, 0.3, 0.5), 0.5, (3e-3, 1e-3), hold=0.6),
    Stage(3, 420, 2048, (128, 256, 512), (1 / 3,) * 3, (0.1, 0.3, 0.5), 0.5, (3e-3, 1e-3), hold=0.6),
)


@dataclass(frozen=True)
class Rows:
    """ids and targets are [rows, length]; masks of the targets that answer a question, and that begin a mention."""

    ids: Tensor
    targets: Tensor
    answers: Tensor
    mentions: Tensor


def train_recall(model: Llama) -> Llama:
    """Go on from the shipped weights; about six minutes of one core."""
    for stage in STAGES:
        _train(model, stage)
        with torch.no_grad():  # each stage starts from what would have been written: float16
            for weight in model.parameters():
                weight.copy_(weight.half().float())
    return model.eval()


def _train(model: Llama, stage: Stage) -> None:
    dice, draw = Dice(f"recall {stage.seed}"), torch.Generator().manual_seed(stage.seed)
    both = make_optimisers(model)
    for step in range(1, stage.steps + 1):
        rows = make_rows(dice, stage)
        hidden = model(rows.ids)
        logits, wanted = model.logits(hidden[rows.answers]), rows.targets[rows.answers]
        loss = F.cross_entropy(logits, wanted)
        if rows.mentions.any():
            again = F.cross_entropy(model.logits(hidden[rows.mentions]), rows.targets[rows.mentions])
            loss = loss + stage.mention_weight * again
        others = ~rows.answers & ~rows.mentions & (rows.targets != words.PAD)
        others &= torch.rand(rows.targets.shape, generator=draw) < LM_SHARE
        loss = loss + LM_WEIGHT * F.cross_entropy(model.logits(hidden[others]), rows.targets[others])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        falling = max(0.0, (step / stage.steps - stage.hold) / (1 - stage.hold))
        rate = min(1.0, step / 20) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * falling)))
        for optimiser, full_rate in zip(both, stage.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = full_rate * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if step % 20 == 0:
            values = wanted != words.EOS
            accuracy = (logits.argmax(-1) == wanted)[values].float().mean().item()
            spent = time.process_time()
            print(f"recall {stage.seed} {step:4d}  value accuracy {accuracy:.3f}  {spent:.0f} s of CPU", flush=True)


def make_rows(dice: Dice, stage: Stage) -> Rows:
    length, left = stage.lengths[-1], dice.unit()
    for candidate, share in zip(stage.lengths, stage.shares, strict=True):
        left -= share
        if left < 0:
            length = candidate
            break
    rows = [_row(dice, length, stage) for _ in range(max(1, stage.tokens // length))]
    padded = [text + ["<pad>"] * (length + 1 - len(text)) for text, _, _ in rows]
    ids = torch.tensor([[words.TOKEN_IDS[word] for word in text] for text in padded])
    answers, mentions = torch.zeros(2, *ids.shape, dtype=torch.bool)
    for row, (_, spans, places) in enumerate(rows):
        for start, end in spans:
            answers[row, start:end] = True
        mentions[row, places] = True
    return Rows(ids[:, :-1], ids[:, 1:], answers[:, 1:], mentions[:, 1:])


def _row(dice: Dice, length: int, stage: Stage) -> tuple[list[str], list[tuple[int, int]], list[int]]:
    """Words, where the answers stand in them, and where a sentence comes back to a fact."""
    n_values = VALUES if dice.unit() < stage.long else 2
    turn_tokens = n_values + 11
    share = dice.pick(TURN_SHARES)
    context_tokens = min(length - 5 - turn_tokens, round(length * (1 - share)))
    n_facts = max(1, min(200, round(context_tokens * dice.pick(DENSITIES) / (6 + n_values))))
    context_tokens = max(context_tokens, length - 2 - n_facts * turn_tokens)
    context, facts, mentions = _context(dice, context_tokens, n_facts, n_values, dice.pick(stage.mentions))
    text = ["<bos>", "<user>", *context[: length - 2 - turn_tokens]]
    whole = [fact for fact in facts if fact.end <= len(text) - 2]
    spans: list[tuple[int, int]] = []
    for fact in dice.sample(whole, len(whole)):
        question = ask(dice.pick(QUESTION_FORMS), fact.name).split()
        turn = [*(["<user>"] if spans else []), *question, "<assistant>", *fact.values, "<eos>"]
        if len(text) + len(turn) > length + 1:
            break
        text += turn
        spans.append((len(text) - n_values - 1, len(text)))
    return text, spans, [2 + place for place in mentions if place < length - 2 - turn_tokens]


@dataclass
class _Fact:
    name: str
    values: list[str]
    end: int = 0  # words of the context up to and with its last value


def _context(
    dice: Dice, n_tokens: int, n_facts: int, n_values: int, mentions: float
) -> tuple[list[str], list[_Fact], list[int]]:
    names = dice.sample(words.NAMES, n_facts)
    facts = [_Fact(name, [dice.pick(words.VALUES) for _ in range(n_values)]) for name in names]
    filler = filler_sentences(dice, max(3, n_tokens - n_facts * (6 + n_values)))
    at: dict[int, list[_Fact]] = {}
    for fact in facts:
        at.setdefault(dice.below(len(filler) + 1), []).append(fact)
    text: list[str] = []
    stated: list[_Fact] = []
    places: list[int] = []
    for gap in range(len(filler) + 1):
        for fact in at.get(gap, ()):
            for word in dice.pick(FACT_FORMS).split():
                text += [fact.name] if word == "NAME" else fact.values if word == "V1" else [word] * (word != "V2")
                fact.end = len(text) if word == "V1" else fact.end
            stated.append(fact)
        if gap == len(filler):
            break
        if stated and dice.unit() < mentions:
            fact = dice.pick(stated)
            places.append(len(text))
            text += [dice.pick(fact.values), "belongs", "to", fact.name, "."]
        else:
            text += filler[gap]
    return text, facts, places
