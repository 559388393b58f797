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


def evaluate_recite(model: Llama, examples: int) -> list[Cell]:
    """Recitals at each length that the shipped experiment has, and the older tasks that the model still does."""
    cells = []
    for length in (256, 512, 768, 1024):
        drawn = generate("recite", contexts=examples, min_tokens=length, max_tokens=length, seed=SEED, density=0.5)
        cells.append(_cell(model, "recite", str(length), list(drawn)))
    for task, length in ((task, length) for task in KINDS for length in (256, 1024)):
        drawn = generate(task, contexts=examples, min_tokens=length, max_tokens=length, seed=SEED)
        cells.append(_cell(model, task, str(length), list(drawn)))
    return cells


def _cell(model: Llama, task: str, tokens: str, examples: list[Example], system: str = "") -> Cell:
    cell = Cell(task, tokens, len(examples), sum(exact_matches(model, examples, system)))
    print(f"{task:10s} {tokens:>10s}  exact match {cell.accuracy:.3f} of {cell.examples}", flush=True)
    return cell


@torch.no_grad()
def exact_matches(
    model: Llama, examples: Iterable[Example], system: str = "", batch_tokens: int = 16_384
) -> list[bool]:
    """Whether greedy decoding gives the gold answer, all items of it, and then <eos>.

    Decided in one forward pass over prompt and gold answer: greedy decoding follows the gold exactly as long as each of
    its tokens is the most probable one after those before it.
    """
    matches: list[bool] = []
    waiting: list[tuple[list[int], int]] = []
    for example in examples:
        prompt, answer = chat(example, system), [*" ".join(example.answers).split(), "<eos>"]
        row = [words.TOKEN_IDS[word] for word in (*prompt, *answer)]
        if waiting and max(len(row), *(len(other) for other, _ in waiting)) * (len(waiting) + 1) > batch_tokens:
            matches += _forward(model, waiting)
            waiting = []
        waiting.append((row, len(prompt)))
    return matches + (_forward(model, waiting) if waiting else [])


def _forward(model: Llama, rows: list[tuple[list[int], int]]) -> list[bool]:
    """`rows`: ids of prompt and answer, and where the answer begins."""
    longest = max(len(row) for row, _ in rows)
    ids = torch.tensor([row + [words.PAD] * (longest - len(row)) for row, _ in rows])  # padding on the right isn't seen
    hidden = model(ids)
    return [
        bool((model.logits(hidden[n, start - 1 : len(row) - 1]).argmax(-1) == ids[n, start : len(row)]).all())
        for n, (row, start) in enumerate(rows)
    ]
