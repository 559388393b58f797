"""Exact match at full cache, per task and prompt length, on contexts that training didn't draw."""

# Checked with torch installed and without; what torch leaves untyped is not ours to fix:
# mypy: disable-error-code="untyped-decorator"

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext import KINDS, chat, generate
from kvt_async.records import Example
from reference.network import Llama

LENGTHS = (128, 256, 512, 1024, 2048)
WHOLE = "recite, whole answers"
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


def evaluate_recite(model: Llama, examples: int) -> list[Cell]:
    """Recitals at lengths of the shipped experiment, as whole answers and by their items, and the older tasks."""
    cells = []
    for length in (256, 512, 768, 1024):
        drawn = list(
            generate("recite", contexts=examples, min_tokens=length, max_tokens=length, seed=SEED, density=0.5)
        )
        right = tokens_right(model, drawn)
        items = [bool(answer[start : start + 5].all()) for answer in right for start in range(0, len(answer) - 1, 5)]
        cells.append(_shown(Cell(WHOLE, str(length), len(right), sum(bool(answer.all()) for answer in right))))
        cells.append(_shown(Cell("recite, items", str(length), len(items), sum(items))))
    for task, length in ((task, length) for task in KINDS for length in (256, 1024)):
        drawn = list(generate(task, contexts=examples, min_tokens=length, max_tokens=length, seed=SEED))
        cells.append(_cell(model, task, str(length), drawn))
    return cells


def _cell(model: Llama, task: str, tokens: str, examples: list[Example], system: str = "") -> Cell:
    right = tokens_right(model, examples, system)
    return _shown(Cell(task, tokens, len(examples), sum(bool(answer.all()) for answer in right)))


def _shown(cell: Cell) -> Cell:
    print(f"{cell.task:22s} {cell.tokens:>10s}  exact match {cell.accuracy:.3f} of {cell.examples}", flush=True)
    return cell


@torch.no_grad()
def tokens_right(
    model: Llama, examples: Iterable[Example], system: str = "", batch_tokens: int = 16_384
) -> list[Tensor]:
    """For each example, which tokens of the gold answer and the <eos> after it are the most probable ones there.

    One forward pass over prompt and gold answer: greedy decoding follows the gold exactly as long as each of its tokens
    is the most probable one after those before it, so an answer is given whole where all are.
    """
    right: list[Tensor] = []
    waiting: list[tuple[list[int], int]] = []
    for example in examples:
        prompt, answer = chat(example, system), [*" ".join(example.answers).split(), "<eos>"]
        row = [words.TOKEN_IDS[word] for word in (*prompt, *answer)]
        if waiting and max(len(row), *(len(other) for other, _ in waiting)) * (len(waiting) + 1) > batch_tokens:
            right += _forward(model, waiting)
            waiting = []
        waiting.append((row, len(prompt)))
    return right + (_forward(model, waiting) if waiting else [])


def _forward(model: Llama, rows: list[tuple[list[int], int]]) -> list[Tensor]:
    """`rows`: ids of prompt and answer, and where the answer begins."""
    longest = max(len(row) for row, _ in rows)
    ids = torch.tensor([row + [words.PAD] * (longest - len(row)) for row, _ in rows])  # padding on the right isn't seen
    hidden = model(ids)
    return [
        model.logits(hidden[n, start - 1 : len(row) - 1]).argmax(-1) == ids[n, start : len(row)]
        for n, (row, start) in enumerate(rows)
    ]
