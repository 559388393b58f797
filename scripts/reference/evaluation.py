"""Exact match at full cache, per task and prompt length, on contexts that training didn't draw."""

# Checked with torch installed and without; what torch leaves untyped is not ours to fix:
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext import KINDS, chat, generate
from kvt_async.records import Example
from reference.network import Llama

LENGTHS = (128, 256, 512, 1024, 2048)
SEED = 20_000  # the demo's own seed is 1337; neither is a training seed of `Dice("kvtext training N")`


@dataclass(frozen=True)
class Cell:
    task: str
    tokens: str  # "512", or "128-223" for a spread of lengths
    examples: int
    exact: int

    @property
    def accuracy(self) -> float:
        return self.exact / self.examples


def evaluate(model: Llama, examples: int) -> list[Cell]:
    """Each task at each of LENGTHS exactly, and over the five equal-sized length bins of 128 to 2,048 tokens."""
    cells = []
    for task in KINDS:
        for length in LENGTHS:
            drawn = generate(task, contexts=examples, min_tokens=length, max_tokens=length, seed=SEED)
            cells.append(_cell(model, task, str(length), list(drawn)))
        spread = sorted(generate(task, contexts=examples * 5, seed=SEED), key=lambda e: int(e.meta["prompt_tokens"]))
        for start in range(0, len(spread), examples):
            part = spread[start : start + examples]
            bounds = f"{part[0].meta['prompt_tokens']}-{part[-1].meta['prompt_tokens']}"
            cells.append(_cell(model, task, bounds, part))
    return cells


def with_system(model: Llama, examples: int, system: str = "you answer with the code .") -> Cell:
    drawn = list(generate("multikey", contexts=examples, min_tokens=512, max_tokens=512, seed=SEED + 1))
    return _cell(model, "multikey with a system text", "512 + text", drawn, system)


def _cell(model: Llama, task: str, tokens: str, examples: list[Example], system: str = "") -> Cell:
    cell = Cell(task, tokens, len(examples), sum(exact_matches(model, examples, system)))
    print(f"{task:10s} {tokens:>10s}  exact match {cell.accuracy:.3f} of {cell.examples}", flush=True)
    return cell


@torch.no_grad()
def exact_matches(
    model: Llama, examples: Iterable[Example], system: str = "", batch_tokens: int = 16_384
) -> list[bool]:
    """Whether greedy decoding gives the gold answer and then <eos>.

    Decided in one forward pass over prompt and gold answer: greedy decoding follows the gold exactly as long as each of
    its tokens is the most probable one after those before it.
    """
    matches: list[bool] = []
    waiting: list[list[int]] = []
    for example in examples:
        text = [*chat(example, system), *example.answers[0].split(), "<eos>"]
        row = [words.TOKEN_IDS[word] for word in text]
        if waiting and max(len(row), *map(len, waiting)) * (len(waiting) + 1) > batch_tokens:
            matches += _forward(model, waiting)
            waiting = []
        waiting.append(row)
    return matches + (_forward(model, waiting) if waiting else [])


def _forward(model: Llama, rows: list[list[int]], answer: int = 3) -> list[bool]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [words.PAD] * (longest - len(row)) for row in rows])  # padding on the right is never seen
    ends = torch.tensor([len(row) for row in rows])
    at = ends[:, None] - answer + torch.arange(answer)
    which = torch.arange(len(rows))[:, None]
    best = model.logits(model(ids)[which, at - 1]).argmax(-1)
    return [bool(row) for row in (best == ids[which, at]).all(-1)]
