"""The stages of training: short rows until the transition, longer rows, then all lengths with a falling rate."""

# Checked with torch installed and without; what torch leaves untyped is not ours to fix:
# mypy: disable-error-code="no-any-return, no-untyped-call"

import hashlib
import math
import time
from collections import deque
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext_text import Dice
from reference.muon import Muon
from reference.network import Llama, Shape, initialise
from reference.rows import IGNORE, Batch, make_batch

LM_SHARE, LM_WEIGHT = 0.1, 0.015  # of all other tokens this share is learned, at this weight
MATRIX_RATE, OTHER_RATE = 3e-3, 1e-3  # Muon, AdamW
WINDOW = 5  # steps whose mean accuracy decides


@dataclass(frozen=True)
class Stage:
    """Ends when the mean accuracy on the answers' values reaches `until`; failing that by `steps` makes a bad start.

    A cosine stage runs all its steps, its rate falling to 3%.
    """

    name: str
    lengths: tuple[int, ...]
    shares: tuple[float, ...]
    warmup_rows: float
    steps: int
    until: float = 2.0
    cosine: bool = False


STAGES = (
    Stage("short", (64,), (1.0,), 0.3, steps=900, until=0.92),
    Stage("middle", (64, 128, 192, 256), (0.25, 0.25, 0.25, 0.25), 0.1, steps=500, until=0.98),
    Stage("all", (128, 256, 512, 1024, 2048, 4096), (0.1, 0.15, 0.2, 0.24, 0.25, 0.06), 0.0, steps=700, cosine=True),
)
GIVE_UP_STEPS, GIVE_UP_BELOW = 300, 0.3  # of the first stage: a start that hasn't caught on by then is a bad one


@dataclass
class Record:
    """What the model card says about the run."""

    seed: int
    start_seed: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    cpu_s: float = 0.0
    data_sha256: str = ""


class BadStartError(Exception):
    """The first stage stayed on the plateau; another start is tried."""


def train(shape: Shape, seed: int, tokens_per_step: int = 4096, tries: int = 4) -> tuple[Llama, Record]:
    """Train from nothing; of up to `tries` starts the first that passes the plateau is trained to the end."""
    began = time.process_time()
    for start_seed in range(seed, seed + tries):
        record = Record(seed, start_seed)
        try:
            model = _train_once(shape, record, tokens_per_step)
        except BadStartError as error:
            print(f"start {start_seed}: {error}", flush=True)
            continue
        record.cpu_s = time.process_time() - began
        return model, record
    raise SystemExit(f"none of {tries} starts passed the plateau: try another --seed")


def _train_once(shape: Shape, record: Record, tokens_per_step: int) -> Llama:
    model = Llama(shape)
    initialise(model, record.start_seed)
    dice = Dice(f"kvtext training {record.start_seed}")
    draw = torch.Generator().manual_seed(record.start_seed)
    optimisers = make_optimisers(model)
    seen, total = hashlib.sha256(), 0
    for stage in STAGES:
        recent: deque[float] = deque(maxlen=WINDOW)
        for step in range(1, stage.steps + 1):
            length = weighted(dice, stage.lengths, stage.shares)
            batch = make_batch(dice, length=length, tokens=tokens_per_step, warmup_share=stage.warmup_rows)
            seen.update(batch.ids.numpy().tobytes())
            total += 1
            rate = min(1.0, total / 20)
            if stage.cosine:
                rate *= 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / stage.steps))
            loss, accuracy = update(model, optimisers, batch, rate, draw)
            record.tokens += batch.ids.numel()
            recent.append(accuracy)
            mean = sum(recent) / len(recent)
            if step % 20 == 0:
                spent = time.process_time()
                print(
                    f"{stage.name} {step:4d}  length {length:4d}  loss {loss:6.3f}  "
                    f"value accuracy {mean:.4f}  {record.tokens / 1e6:.2f} M tokens  {spent:.0f} s of CPU",
                    flush=True,
                )
            if stage is STAGES[0] and step == GIVE_UP_STEPS and mean < GIVE_UP_BELOW:
                raise BadStartError(f"accuracy {mean:.2f} after {step} steps")
            if len(recent) == WINDOW and mean >= stage.until:
                break
        else:
            if not stage.cosine:
                raise BadStartError(f"stage {stage.name} ended at {mean:.2f}, below {stage.until}")
        record.steps[stage.name] = step
    record.data_sha256 = seen.hexdigest()
    return model.eval()


def weighted(dice: Dice, items: tuple[int, ...], shares: tuple[float, ...]) -> int:
    left = dice.unit() * sum(shares)
    for item, share in zip(items, shares, strict=True):
        left -= share
        if left < 0:
            return item
    return items[-1]


def make_optimisers(model: Llama) -> list[torch.optim.Optimizer]:
    matrices = [w for name, w in model.named_parameters() if w.ndim == 2 and "embed" not in name]
    others = [w for name, w in model.named_parameters() if w.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def update(
    model: Llama, optimisers: list[torch.optim.Optimizer], batch: Batch, rate: float, draw: torch.Generator
) -> tuple[float, float]:
    """One update; returns the loss and the accuracy on the answers' values."""
    others = ~batch.answers & (batch.targets != IGNORE) & (torch.rand(batch.targets.shape, generator=draw) < LM_SHARE)
    hidden = model(batch.ids)
    logits = model.logits(hidden[batch.answers])
    wanted = batch.targets[batch.answers]
    loss = F.cross_entropy(logits, wanted)
    loss = loss + LM_WEIGHT * F.cross_entropy(model.logits(hidden[others]), batch.targets[others])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser, full_rate in zip(optimisers, (MATRIX_RATE, OTHER_RATE), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = full_rate * rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return loss.item(), _accuracy(logits, wanted)


def _accuracy(logits: Tensor, wanted: Tensor) -> float:
    """Share of right values; the <eos> after them is easy and doesn't count."""
    logits, wanted = logits[wanted != words.EOS], wanted[wanted != words.EOS]
    return (logits.argmax(-1) == wanted).float().mean().item()
