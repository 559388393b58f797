"""The model card: what the model is, how it was made, what it was measured to do, and what it can't."""

import platform
from dataclasses import dataclass

import torch

from reference.evaluation import Cell
from reference.network import Llama
from reference.recite import CHAT_SHARE, MOST_NAMES
from reference.recite import STAGES as RECITE_STAGES
from reference.training import MATRIX_RATE, OTHER_RATE, STAGES, Record


@dataclass(frozen=True)
class Made:
    """Where and how the weights were made."""

    record: Record
    threads: int
    weights_sha256: str
    vocabulary_sha256: str


def card(model: Llama, made: Made, cells: list[Cell], system: Cell) -> str:
    shape, record = model.shape, made.record
    stages = "\n".join(
        f"| {stage.name} | {', '.join(map(str, stage.lengths))} | {record.steps[stage.name]} | "
        + (f"falls along a cosine; {stage.steps} steps" if stage.cosine else f"constant; until {stage.until} of values")
        + " |"
        for stage in STAGES
    )
    rows = "\n".join(f"| {cell.task} | {cell.tokens} | {cell.examples} | {cell.accuracy:.3f} |" for cell in cells)
    parameters = sum(weight.numel() for weight in model.parameters())
    return f"""---
license: apache-2.0
tags: [synthetic, retrieval, kv-cache]
---

# The kvt reference model

A {parameters:,}-parameter `LlamaForCausalLM` that finds facts in up to 2,048 tokens of synthetic text. It exists so
that the effect of a smaller KV cache can be seen on any laptop: real weights, real attention, real eviction.
`scripts/train_reference.py` makes this whole folder from nothing.

{shape.num_hidden_layers} layers, width {shape.hidden_size}, {shape.num_attention_heads} query heads, \
{shape.num_key_value_heads} KV heads of {shape.head_dim}, SwiGLU {shape.intermediate_size}, RMSNorm, \
RoPE base {shape.rope_theta:,.0f}, tied embeddings, no biases,
{shape.vocab_size} word-level tokens, float16 weights.

## What it can do

Prompts are chats in kvtext's words (`kvt_async/data/sources/kvtext.py`), one space between words:

    <bos> <user> CONTEXT what is the code of NAME ? <assistant> V1 V2 <eos>
    <user> which code belongs to NAME ? <assistant> ...

Exact match at full cache: greedy decoding gives both values and then `<eos>`. Float32 arithmetic on the float16 weights
of this folder, contexts from a seed that training didn't use. A range of tokens is one of the five equal-sized length
bins of a 128 to 2,048 spread, as in the demo.

| task | prompt tokens | examples | exact match |
| --- | --- | --- | --- |
{rows}
| {system.task} | {system.tokens} | {system.examples} | {system.accuracy:.3f} |

single: one fact in filler. multikey: 35% of the context are facts. multiturn: as multikey, third question of the chat.

## What it can't do

- It answers these two questions about these facts, in these words. Any other word is `<unk>`. It is not a language
  model, and nothing outside the generator's distribution was measured.
- Tracking through two hops, lists and several answers in one turn were not trained; several questions are several
  turns.
- It saw rows of 4,096 tokens only rarely; beyond 2,048 nothing is promised.
- It has little redundancy: a fact is found by a few heads. Its curves under eviction are therefore steeper and the
  differences between policies larger than in real models. Read directions here, not sizes.
- SnapKV needs the window plus the fact to fit: it breaks at a number of kept tokens, not at a ratio.
- A system text was part of one training row in ten; other texts than short ones in kvtext's words were not tried.

## How it was made

Structured start (`scripts/reference/network.py`: layer 0 looks 1 to 4 tokens back, the layers above match and copy),
then Muon at {MATRIX_RATE} for matrices and AdamW at {OTHER_RATE} for the rest, 4,096 tokens a step, cross-entropy on
the answers and a little on other tokens.

| stage | row lengths | steps | rate |
| --- | --- | --- | --- |
{stages}

| | |
| --- | --- |
| seed | {record.seed} (the start that passed the first stage: {record.start_seed}) |
| steps | {sum(record.steps.values()):,} |
| tokens | {record.tokens:,} |
| training time | {record.cpu_s:.0f} s of CPU, {made.threads} thread{"s" if made.threads > 1 else ""}, {_machine()} |
| SHA-256 of all training rows | `{record.data_sha256}` |
| SHA-256 of the vocabulary | `{made.vocabulary_sha256}` |
| SHA-256 of model.safetensors | `{made.weights_sha256}` |

Every machine draws the same rows in the same order. The weights are the same bits only on the same kind of CPU with the
same torch and the same number of threads: elsewhere sums are taken in another order, the small differences grow over
{sum(record.steps.values()):,} steps, and the first two stages may end a step earlier or later.
The accuracy is what should repeat.
"""


def recite_card(model: Llama, made: Made, cells: list[Cell], first_sha256: str) -> str:
    """The card of the variant; `first_sha256`: of the weights that its training went on from."""
    record = made.record
    stages = "\n".join(
        f"| {stage.name} | {', '.join(map(str, stage.lengths))} | {record.steps[stage.name]} | "
        + (f"constant; until {stage.until} of an answer's tokens |" if stage.until else "falls along a cosine |")
        for stage in RECITE_STAGES
    )
    rows = "\n".join(f"| {cell.task} | {cell.tokens} | {cell.examples} | {cell.accuracy:.3f} |" for cell in cells)
    parameters = sum(weight.numel() for weight in model.parameters())
    return f"""---
license: apache-2.0
tags: [synthetic, retrieval, kv-cache]
---

# The kvt reference model that recites

A variant of kvt's reference model (`kvt_async/serve/reference`), of the same shape ({parameters:,} parameters, float16)
and with the same tokenizer, that gives long answers: asked for the codes of many names, it says each name with its
code, in the order of the question. It exists to see what happens when a KV cache is made smaller while an answer is
being written. `kvt serve --model reference-recite` serves it.

## What it can do

    <bos> <user> CONTEXT list the code of NAME , and then NAME , and then NAME . answer with a list of code .
    <assistant> NAME has code V1 V2 NAME has code V1 V2 NAME has code V1 V2 <eos>

An answer takes five tokens a name: at 1,024 prompt tokens, half of the context facts, about 50 names and 250 tokens.
Exact match at full cache, by greedy decoding. Float32 arithmetic on the float16 weights of this folder, contexts from a
seed that training didn't use. recite: all names of the context, half of the context facts; an answer is whole where it
is right in every token, `<eos>` too, and an item where its five tokens are right after the right ones before.

| task | prompt tokens | examples | exact match |
| --- | --- | --- | --- |
{rows}

## What it can't do

- It answers this question and the two of the reference model, about kvtext's facts and in its words. Any other word is
  `<unk>`. It is not a language model.
- It was trained on up to {max(RECITE_STAGES[-1].lengths):,} tokens of prompt and
  answer together, and on up to {MOST_NAMES} names; beyond that nothing is promised.
- An answer needs three things at any time: the facts that were not yet told, the rest of the question, and the last
  few tokens. It never comes back to what it has told, so policies that keep what was attended to lately are at a
  disadvantage here.
- It has little redundancy: a fact is found by a few heads. Its curves under eviction are therefore steeper and the
  differences between policies larger than in real models. Read directions here, not sizes.

## How it was made

`scripts/train_reference.py --recipe recite` makes this whole folder from the reference model's weights: Muon at
{MATRIX_RATE} for matrices and AdamW at {OTHER_RATE} for the rest, 4,096 tokens a step, cross-entropy on the answers and
a little on other tokens; {CHAT_SHARE:.0%} of the rows are those of the reference model.

| stage | row lengths | steps | rate |
| --- | --- | --- | --- |
{stages}

| | |
| --- | --- |
| seed | {record.seed} |
| steps | {sum(record.steps.values()):,} |
| tokens | {record.tokens:,} |
| training time | {record.cpu_s:.0f} s of CPU, {made.threads} thread{"s" if made.threads > 1 else ""}, {_machine()} |
| SHA-256 of all training rows | `{record.data_sha256}` |
| SHA-256 of the vocabulary | `{made.vocabulary_sha256}` |
| SHA-256 of the weights it began with | `{first_sha256}` |
| SHA-256 of model.safetensors | `{made.weights_sha256}` |

Every machine draws the same rows in the same order. The weights are the same bits only on the same kind of CPU with the
same torch and the same number of threads; the accuracy is what should repeat.
"""


def _machine() -> str:
    return f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"
