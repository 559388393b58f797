"""kvtext: retrieval questions over filler text, in the words of the reference model.

A context is filler with facts ("the code of NAME is V1 V2 .") between its sentences; a question asks for one name's two
values. Filler speaks of the same names, so a name alone doesn't mark a fact. In every fact the first value stands two
tokens after the name, and in every rendered question the answer is predicted two tokens after the name: that one
distance is what the reference model's attention heads are built on, and the tests hold every form to it.

`recite` asks for all names of a context at once. Its answer is long and orderly: an item for each name, in the order of
the question. In the question a name stands four tokens after the one before it, and so it does in the answer: that is
how a model finds out who is next.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext_text import (
    FACT_TOKENS,
    QUESTION_FORMS,
    SHORTEST_SENTENCE,
    VALUE_TOKENS,
    Dice,
    ask,
    ask_all,
    compose,
    item,
)
from kvt_async.records import Example

TASKS = {
    "single": "one fact in filler text, one question",
    "multikey": "35% of the context are facts about different names, one question",
    "multiturn": "as multikey, after two earlier questions and their answers on the same context",
    "mixed": "single, multikey and multiturn in turn",
    "recite": "as multikey, one question for all of its names: an answer of an item for each, in the order asked",
}
KINDS = ("single", "multikey", "multiturn")

DENSITY = 0.35  # share of a multikey context's tokens that belong to facts
EARLIER_TURNS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which examples to make. Raises ConfigError for an unknown task or for sizes that no context can have.

    `min_tokens` and `max_tokens` bound the rendered prompt, chat template included. `keys` facts are in every context,
    few needles at any length; None: as many as `density` gives. An answer has `value_tokens` values; the shipped model
    was trained on two.
    """

    task: str
    contexts: int
    min_tokens: int = 128
    max_tokens: int = 2048
    questions_per_context: int = 1
    seed: int = 1337
    density: float = DENSITY
    earlier_turns: int = EARLIER_TURNS
    keys: int | None = None
    value_tokens: int = VALUE_TOKENS

    def __post_init__(self) -> None:
        _check(self)

    def dice(self, index: int) -> Dice:
        """What decides the context of this index."""
        form = "" if (self.keys, self.value_tokens) == (None, VALUE_TOKENS) else f" {self.keys} {self.value_tokens}"
        sizes = f"{self.contexts} {self.min_tokens} {self.max_tokens} {self.density}"
        return Dice(f"kvtext {self.task} {self.seed} {sizes} {index}{form}")


def generate(task: str, **parameters: Any) -> Iterator[Example]:
    """Yield contexts * questions_per_context examples; the questions of one context follow each other.

    `parameters`: fields of Recipe. Lengths are stratified over log(length) and depths follow a golden-ratio sequence
    along the lengths, so every length bin sees every depth.
    `meta` has task, name, keys, depth in [0, 1] of the asked fact, answer_token (word index of its first value in the
    context), context_tokens, prompt_tokens, context_id, and for multiturn `turns`, the earlier [question, answer]s.
    An example of recite has as many golds as names, the items of its answer in their order; its `meta` has
    `answer_tokens`, the word index of each item's first value, in place of name, depth and answer_token.

    Raises ConfigError as Recipe does, once the first example is asked for.
    """
    recipe = Recipe(task=task, **parameters)
    contexts, questions = recipe.contexts, recipe.questions_per_context
    order = Dice(f"kvtext order {recipe.seed}").sample(range(contexts), contexts)
    offset = Dice(f"kvtext depth {recipe.seed}").unit()
    for index in order:
        dice = recipe.dice(index)
        stratum = (index + dice.unit()) / contexts
        target = min(recipe.max_tokens, round(recipe.min_tokens * (recipe.max_tokens / recipe.min_tokens) ** stratum))
        depths = [(offset + (index * questions + q) * 0.6180339887498949) % 1.0 for q in range(questions)]
        if task == "recite":
            yield from _recitals(recipe, index, dice, target)
        else:
            yield from _examples(recipe, index, dice, target, depths)


def _examples(recipe: Recipe, index: int, dice: Dice, prompt_tokens: int, depths: Sequence[float]) -> Iterator[Example]:
    """One context of exactly the length that makes every one of its rendered prompts `prompt_tokens` long."""
    kind = KINDS[index % len(KINDS)] if recipe.task == "mixed" else recipe.task
    n_values, context_name = recipe.value_tokens, f"{recipe.task}-{index:05d}"
    n_turns = recipe.earlier_turns + 1 if kind == "multiturn" else 1
    forms = [dice.pick(QUESTION_FORMS) for _ in range(n_turns)]
    context_tokens = prompt_tokens - _overhead(forms, n_values)
    n_keys = recipe.keys or _n_facts(context_tokens, recipe.density, n_values)
    n_facts = 1 if kind == "single" else max(len(depths), n_turns, n_keys)
    passage = compose(dice, context_tokens, n_facts, depths, n_values)
    context = " ".join(passage.words)
    context_id = f"{context_name}-{_digest(context)}"
    for q, fact in enumerate(passage.facts[: len(depths)]):
        others = [other for other in passage.facts if other is not fact]
        earlier = dice.sample(others, n_turns - 1)
        turns = [[ask(form, turn.name), turn.answer] for form, turn in zip(forms, earlier, strict=False)]
        meta = {
            "task": kind,
            "name": fact.name,
            "keys": n_facts,
            "depth": fact.start / max(1, context_tokens - _fact_tokens(n_values)),
            "answer_token": fact.answer_token,
            "context_tokens": context_tokens,
            "prompt_tokens": prompt_tokens,
            "context_id": context_id,
        }
        if turns:
            meta["turns"] = turns
        question = ask(forms[-1], fact.name)
        identity = _digest(" ".join([context, *(part for turn in turns for part in turn), question]))
        yield Example(f"{context_name}-{q}-{identity}", question, context, (fact.answer,), meta)


def _recitals(recipe: Recipe, index: int, dice: Dice, prompt_tokens: int) -> Iterator[Example]:
    """One context and questions for all of its names, each time in another order."""
    n_facts = recipe.keys or _n_recited(prompt_tokens, recipe)
    context_tokens = prompt_tokens - _recital_overhead(n_facts)
    passage = compose(dice, context_tokens, n_facts, n_values=recipe.value_tokens)
    context = " ".join(passage.words)
    context_name = f"recite-{index:05d}"
    for q in range(recipe.questions_per_context):
        asked = dice.sample(passage.facts, n_facts)
        question = ask_all([fact.name for fact in asked])
        meta = {
            "task": "recite",
            "keys": n_facts,
            "answer_tokens": [fact.answer_token for fact in asked],
            "context_tokens": context_tokens,
            "prompt_tokens": prompt_tokens,
            "context_id": f"{context_name}-{_digest(context)}",
        }
        identity = _digest(f"{context} {question}")
        yield Example(f"{context_name}-{q}-{identity}", question, context, tuple(map(item, asked)), meta)


def chat(example: Example, system: str = "") -> list[str]:
    """The words the model reads: what the chat template renders for this example, up to the answer."""
    turns = [*example.meta.get("turns", []), [example.question, None]]
    layout = ["<bos>", *(["<system>", *system.split()] if system else [])]
    for n, (question, answer) in enumerate(turns):
        layout += ["<user>", *(example.context.split() if n == 0 else []), *question.split(), "<assistant>"]
        layout += [*answer.split(), "<eos>"] if answer else []
    return layout


def _overhead(forms: Sequence[str], n_values: int) -> int:
    """Words of a rendered prompt beside its context: <bos>, the turns with their marks, the earlier answers."""
    return 1 + sum(2 + len(form.split()) for form in forms) + (len(forms) - 1) * (n_values + 1)


def _n_facts(context_tokens: int, density: float, n_values: int) -> int:
    return max(1, round(context_tokens * density / _fact_tokens(n_values)))


def _recital_overhead(n_names: int) -> int:
    """As `_overhead`: <bos>, <user>, <assistant>, and a question for so many names."""
    return 3 + len(ask_all(["name"] * n_names).split())


def _n_recited(prompt_tokens: int, recipe: Recipe) -> int:
    """How many facts make `density` of a context that shares the prompt with the question for all of them."""
    per_name = _recital_overhead(2) - _recital_overhead(1)
    left = prompt_tokens - _recital_overhead(1) + per_name
    return max(1, int(left / (_fact_tokens(recipe.value_tokens) / recipe.density + per_name)))


def _fact_tokens(n_values: int) -> int:
    return FACT_TOKENS - VALUE_TOKENS + n_values


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _check(recipe: Recipe) -> None:
    task, questions, earlier_turns = recipe.task, recipe.questions_per_context, recipe.earlier_turns
    contexts, density = recipe.contexts, recipe.density
    min_tokens, max_tokens = recipe.min_tokens, recipe.max_tokens
    keys, value_tokens = recipe.keys, recipe.value_tokens
    if task not in TASKS:
        raise ConfigError(
            f"kvtext has no task {task!r}", where="dataset.task", do=f"Choose one of: {', '.join(TASKS)}."
        )
    if contexts < 1 or questions < 1:
        raise ConfigError(
            f"kvtext needs at least one context and one question on it, not {contexts} and {questions}",
            where="dataset",
            do="Set contexts and questions_per_context to 1 or more.",
        )
    if task in ("single", "mixed") and questions > 1:
        raise ConfigError(
            f"a single-fact context can't carry {questions} questions",
            where="dataset.questions_per_context",
            do="Use task multikey or multiturn, or one question per context.",
        )
    if not 0.0 < density <= 0.9 or earlier_turns < 1:
        raise ConfigError(
            f"density {density} or earlier_turns {earlier_turns} is out of range",
            where="dataset",
            do="Keep density above 0 and up to 0.9, earlier_turns at 1 or more.",
        )
    if value_tokens < 1 or (keys is not None and keys < 1):
        raise ConfigError(
            f"value_tokens {value_tokens} or keys {keys} is out of range",
            where="dataset",
            do="Keep both at 1 or more; leave keys out for as many facts as density gives.",
        )
    turns = earlier_turns + 1 if task in ("multiturn", "mixed") else 1
    longest = _overhead([max(QUESTION_FORMS, key=lambda form: len(form.split()))] * turns, value_tokens)
    facts_needed = max(questions, turns, 1 if task == "single" else keys or 1)
    if task == "recite":
        facts_needed = keys or 1
        longest = _recital_overhead(facts_needed)
    needed = longest + facts_needed * _fact_tokens(value_tokens) + SHORTEST_SENTENCE
    if min_tokens < needed or max_tokens < min_tokens:
        raise ConfigError(
            f"kvtext {task} can't make prompts of {min_tokens} to {max_tokens} tokens",
            where="dataset.min_tokens",
            do=f"Keep {needed} <= min_tokens <= max_tokens: template, {facts_needed} facts and a sentence.",
        )
    by_density = _n_recited(max_tokens, recipe) if task == "recite" else _n_facts(max_tokens, density, value_tokens)
    most = 1 if task == "single" else max(facts_needed, keys or by_density)
    if most > len(words.NAMES):
        raise ConfigError(
            f"{most} facts need as many names, and there are {len(words.NAMES)}",
            where="dataset",
            do="Lower density, max_tokens or questions_per_context.",
        )
