"""A variant of the reference model that recites: asked for many names at once, it says every one with its values.

Training goes on from the shipped weights. What is new is to find the next name: in the question and in the answer it
stands four tokens after the one before, as far back as a head of layer 0 looks.
"""

# Checked with torch installed and without; what torch leaves untyped is not ours to fix:
# mypy: disable-error-code="no-any-return, no-untyped-call"

import hashlib
import math
import time
from collections import deque
from dataclasses import dataclass

import torch

from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext_text import Dice, Fact, ask_all, compose, item
from reference.network import Llama
from reference.rows import Batch, Row, as_batch, chat_row
from reference.training import WINDOW, Record, make_optimisers, update, weighted

CHAT_SHARE = 0.15  # rows as the shipped model was trained on
DENSITIES = (0.2, 0.35, 0.5, 0.8)  # share of a context's tokens in facts
MOST_NAMES = 64  # in a row
PER_NAME = 9  # tokens of a name in the question and in the answer


@dataclass(frozen=True)
class Stage:
    """`bare`: share of rows whose context is nothing but facts.

    A stage with `until` has a constant rate and ends when the mean accuracy on the answers reaches that, failing that
    by `steps` is an error; another runs all its steps, the last four fifths of them at a falling rate.
    """

    name: str
    lengths: tuple[int, ...]
    shares: tuple[float, ...]
    steps: int
    bare: float = 0.0
    until: float | None = None


STAGES = (
    Stage("short", (96, 128, 192), (0.3, 0.4, 0.3), steps=900, bare=0.3, until=0.98),
    Stage("all", (192, 384, 768, 1280), (0.15, 0.25, 0.3, 0.3), steps=500),
)
HOLD = 0.2  # share of the steps of a stage without `until` before its rate falls


def train_recite(model: Llama, seed: int = 1, tokens_per_step: int = 4096) -> Record:
    """Go on from the weights that `model` has; about ten minutes of one core."""
    began, record, seen = time.process_time(), Record(seed, seed), hashlib.sha256()
    dice, draw = Dice(f"recite {seed}"), torch.Generator().manual_seed(seed)
    optimisers = make_optimisers(model)
    for stage in STAGES:
        recent: deque[float] = deque(maxlen=WINDOW)
        for step in range(1, stage.steps + 1):
            batch = make_rows(dice, stage, tokens_per_step)
            seen.update(batch.ids.numpy().tobytes())
            falling = 0.0 if stage.until else max(0.0, (step / stage.steps - HOLD) / (1 - HOLD))
            rate = min(1.0, step / 20) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * falling)))
            loss, accuracy = update(model, optimisers, batch, rate, draw)
            record.tokens += batch.ids.numel()
            recent.append(accuracy)
            if step % 20 == 0:
                spent = time.process_time() - began
                print(
                    f"{stage.name} {step:4d}  length {batch.ids.shape[1]:4d}  loss {loss:6.3f}  "
                    f"answer accuracy {accuracy:.4f}  {spent:.0f} s of CPU",
                    flush=True,
                )
            if stage.until and len(recent) == WINDOW and sum(recent) / WINDOW >= stage.until:
                break
        else:
            if stage.until:
                raise SystemExit(f"stage {stage.name} did not reach {stage.until}: try another --seed")
        record.steps[stage.name] = step
    record.cpu_s, record.data_sha256 = time.process_time() - began, seen.hexdigest()
    model.eval()
    return record


def make_rows(dice: Dice, stage: Stage, tokens: int) -> Batch:
    length = weighted(dice, stage.lengths, stage.shares)
    rows = []
    for _ in range(max(1, tokens // length)):
        kind = dice.unit()
        if kind < CHAT_SHARE:
            rows.append(chat_row(dice, length))
        else:
            rows.append(_bare_row(dice, length) if kind < CHAT_SHARE + stage.bare else _recital_row(dice, length))
    return as_batch(rows, length)


def _recital_row(dice: Dice, length: int) -> Row:
    left = length - len(ask_all([]).split()) - 4
    n_facts = max(1, min(MOST_NAMES, int(left / (8 / dice.pick(DENSITIES) + PER_NAME))))
    passage = compose(dice, left - PER_NAME * n_facts, n_facts)
    return _answered(dice, passage.words, passage.facts)


def _bare_row(dice: Dice, length: int) -> Row:
    n_facts = (length - 20) // (6 + PER_NAME)
    facts = [
        Fact(name, (dice.pick(words.VALUES), dice.pick(words.VALUES)), 0, 0)
        for name in dice.sample(words.NAMES, n_facts)
    ]
    return _answered(dice, [word for fact in facts for word in f"of {fact.name} is {fact.answer} .".split()], facts)


def _answered(dice: Dice, context: list[str], facts: list[Fact]) -> Row:
    asked = dice.sample(facts, len(facts))
    text = ["<bos>", "<user>", *context, *ask_all([fact.name for fact in asked]).split(), "<assistant>"]
    answer = " ".join(map(item, asked)).split()
    return [*text, *answer, "<eos>"], [(len(text), len(text) + len(answer) + 1)]
