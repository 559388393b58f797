"""kvtext: what a generated example promises, for every task, length and seed."""

import hashlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources import kvtext_words as words
from kvt_async.data.sources.kvtext import KINDS, TASKS, chat, generate
from kvt_async.data.sources.kvtext_text import (
    FACT_FORMS,
    FACT_TOKENS,
    QUESTION_FORMS,
    SENTENCES,
    SLOTS,
    Dice,
    Fact,
    ask_all,
    filler_sentences,
    item,
)
from kvt_async.records import Example

ASKING = sorted(TASKS.keys() - {"recite"})  # for one name, with an answer of two tokens
any_task = st.sampled_from(sorted(TASKS))
any_asking = st.sampled_from(ASKING)
any_size = st.tuples(st.integers(128, 700), st.integers(0, 600))


def draw(task: str, sizes: tuple[int, int], seed: int = 1337, contexts: int = 4, **kwargs: Any) -> list[Example]:
    low, extra = sizes
    return list(generate(task, contexts=contexts, min_tokens=low, max_tokens=low + extra, seed=seed, **kwargs))


@pytest.mark.parametrize("fact", FACT_FORMS)
@pytest.mark.parametrize("question", QUESTION_FORMS)
def test_a_question_predicts_its_answer_as_far_behind_the_name_as_the_fact_keeps_it(fact: str, question: str) -> None:
    in_fact, in_prompt = fact.split(), [*question.split(), "<assistant>"]
    distance = in_fact.index("V1") - in_fact.index("NAME")
    assert distance == 2
    assert len(in_prompt) - 1 - in_prompt.index("NAME") == distance  # <assistant> is where the first value is predicted
    assert in_fact.index("V2") == in_fact.index("V1") + 1
    assert len(in_fact) == FACT_TOKENS


@settings(max_examples=25, deadline=None)
@given(any_asking, any_size, st.integers(0, 10_000))
def test_in_every_prompt_name_to_answer_is_the_same_distance_in_context_and_question(
    task: str, sizes: tuple[int, int], seed: int
) -> None:
    for example in draw(task, sizes, seed):
        prompt, context, name = chat(example), example.context.split(), str(example.meta["name"])
        at = int(example.meta["answer_token"])
        assert context[at - 2] == name
        assert prompt[-3] == name
        assert prompt[-1] == "<assistant>"


@settings(max_examples=25, deadline=None)
@given(any_asking, any_size, st.integers(0, 10_000))
def test_the_answer_stands_in_the_context_where_meta_says_and_nowhere_else(
    task: str, sizes: tuple[int, int], seed: int
) -> None:
    for example in draw(task, sizes, seed):
        context, gold = example.context.split(), example.answers[0].split()
        places = [n for n in range(len(context) - 1) if context[n : n + 2] == gold]
        assert places == [example.meta["answer_token"]]
        assert 0.0 <= example.meta["depth"] <= 1.0
        start = round(example.meta["depth"] * (len(context) - FACT_TOKENS))
        assert start < places[0] < start + FACT_TOKENS


@settings(max_examples=25, deadline=None)
@given(any_task, any_size, st.integers(0, 10_000))
def test_every_word_is_in_the_vocabulary_and_words_are_joined_by_single_spaces(
    task: str, sizes: tuple[int, int], seed: int
) -> None:
    for example in draw(task, sizes, seed):
        assert set(chat(example)) <= set(words.TOKEN_IDS)
        turns = [part for turn in example.meta.get("turns", []) for part in turn]
        for text in (example.context, example.question, *example.answers, *turns):
            assert text == " ".join(text.split())


@settings(max_examples=25, deadline=None)
@given(any_task, any_size, st.integers(0, 10_000))
def test_rendered_prompts_are_as_long_as_meta_says_and_within_the_asked_range(
    task: str, sizes: tuple[int, int], seed: int
) -> None:
    for example in draw(task, sizes, seed):
        assert len(chat(example)) == example.meta["prompt_tokens"]
        assert len(example.context.split()) == example.meta["context_tokens"]
        assert sizes[0] <= example.meta["prompt_tokens"] <= sum(sizes)


@settings(max_examples=15, deadline=None)
@given(any_task, any_size, st.integers(0, 10_000))
def test_the_same_seed_gives_the_same_examples_and_another_seed_gives_others(
    task: str, sizes: tuple[int, int], seed: int
) -> None:
    once = draw(task, sizes, seed)
    assert draw(task, sizes, seed) == once
    assert not {e.example_id for e in draw(task, sizes, seed + 1)} & {e.example_id for e in once}


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [(("single", "multikey", "multiturn", "mixed"), "fcc8bc06f63f"), (("recite",), "c7f8359eec32")],
)
def test_the_text_is_the_same_on_every_machine_and_python(tasks: tuple[str, ...], expected: str) -> None:
    everything = [
        (e.example_id, e.question, e.context, e.answers, sorted(e.meta.items()))
        for task in tasks
        for e in generate(task, contexts=6, max_tokens=600)
    ]
    digest = hashlib.sha256(repr(everything).encode()).hexdigest()
    assert digest.startswith(expected), "stored experiments name these examples: a change here changes their ids"


def test_the_vocabulary_is_the_one_the_shipped_weights_were_trained_with() -> None:
    assert len(set(words.VOCABULARY)) == len(words.VOCABULARY) == 544
    assert hashlib.sha256("\n".join(words.VOCABULARY).encode()).hexdigest().startswith("13aed3210ae5")


@pytest.mark.parametrize("task", sorted(TASKS))
def test_ids_are_unique_over_a_whole_data_set(task: str) -> None:
    ids = [e.example_id for e in generate(task, contexts=100, max_tokens=512)]
    assert len(set(ids)) == len(ids) == 100


@pytest.mark.parametrize("task", ASKING)
def test_five_equal_bins_of_length_are_well_filled_and_each_sees_every_depth(task: str) -> None:
    examples = sorted(generate(task, contexts=200), key=lambda e: int(e.meta["prompt_tokens"]))
    lengths = [int(e.meta["prompt_tokens"]) for e in examples]
    assert lengths[0] <= 135
    assert lengths[-1] >= 1950
    for start in range(0, 200, 40):
        part = examples[start : start + 40]
        assert lengths[start + 39] > 1.5 * lengths[start]  # a bin is a range of lengths, not one crowded value
        assert len({e.context for e in part}) == 40
        assert_uniform([float(e.meta["depth"]) for e in part], tolerance=0.15)


@pytest.mark.parametrize("task", KINDS)
def test_depths_are_uniform(task: str) -> None:
    depths = [float(e.meta["depth"]) for e in generate(task, contexts=400, min_tokens=512, max_tokens=512)]
    assert_uniform(depths, tolerance=0.05)


def assert_uniform(depths: list[float], tolerance: float) -> None:
    """The largest distance between the empirical distribution and the uniform one (Kolmogorov-Smirnov)."""
    n = len(depths)
    distance = max(max((i + 1) / n - d, d - i / n) for i, d in enumerate(sorted(depths)))
    assert distance < tolerance, f"depths are {distance:.3f} away from uniform"


def test_questions_on_one_context_share_it_and_ask_for_different_names() -> None:
    examples = list(generate("multikey", contexts=5, questions_per_context=4, max_tokens=512))
    by_context = {
        e.meta["context_id"]: [o for o in examples if o.meta["context_id"] == e.meta["context_id"]] for e in examples
    }
    assert [len(group) for group in by_context.values()] == [4] * 5
    for group in by_context.values():
        assert len({e.context for e in group}) == 1
        assert len({e.question.split()[-2] for e in group}) == 4
        assert len({e.example_id for e in group}) == 4


def test_a_single_context_holds_one_fact_and_a_multikey_context_is_a_third_facts() -> None:
    for example in generate("single", contexts=10):
        assert sum(word in words.VALUES for word in example.context.split()) == 2
    for example in generate("multikey", contexts=10):
        values = sum(word in words.VALUES for word in example.context.split())
        assert values == 2 * example.meta["keys"]
        assert values / 2 * FACT_TOKENS / example.meta["context_tokens"] == pytest.approx(0.35, abs=0.05)


def test_multiturn_carries_earlier_turns_with_gold_answers_about_other_names_of_the_context() -> None:
    for example in generate("multiturn", contexts=10, max_tokens=600):
        turns = example.meta["turns"]
        names = [question.split()[-2] for question, _ in turns] + [example.meta["name"]]
        assert len(turns) == 2
        assert len(set(names)) == 3
        for question, answer in turns:
            name = question.split()[-2]
            found = [form.replace("NAME", name).replace("V1 V2", answer) in example.context for form in FACT_FORMS]
            assert any(found)


def test_a_name_is_as_far_behind_the_next_one_in_the_answer_of_a_recital_as_in_its_question() -> None:
    question = ask_all(["first", "second"]).split()
    distance = question.index("second") - question.index("first")
    facts = [Fact("first", ("300", "301"), 0, 0), Fact("second", ("302", "303"), 0, 0)]
    answer = " ".join(map(item, facts)).split()
    # a token predicts the next: the last one of an item stands where the next name is predicted
    assert answer.index("second") - 1 - answer.index("first") == distance == 4
    # and the first value of an item is predicted as far behind the name as it stands behind it in a fact
    assert answer.index("300") - 1 == FACT_FORMS[0].split().index("V1") - FACT_FORMS[0].split().index("NAME")


@settings(max_examples=25, deadline=None)
@given(any_size, st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_a_recital_asks_for_every_name_of_its_context_and_its_golds_are_their_codes_in_the_order_asked(
    sizes: tuple[int, int], seed: int, density: float
) -> None:
    for example in draw("recite", sizes, seed, density=density):
        context, golds = example.context.split(), [gold.split() for gold in example.answers]
        names = [name for name, *_ in golds]
        assert example.question == ask_all(names)
        assert len(names) == len(set(names)) == example.meta["keys"]
        assert sum(word in words.VALUES for word in context) == 2 * len(names)
        for at, (name, _, _, *code) in zip(example.meta["answer_tokens"], golds, strict=True):
            assert [context[at - 2], *context[at : at + 2]] == [name, *code]


def test_the_answers_of_recitals_grow_with_the_prompt_from_60_to_250_tokens() -> None:
    """The shipped experiment's lengths: half of a context are facts, five answer tokens each."""
    examples = list(generate("recite", contexts=60, min_tokens=256, max_tokens=1024, density=0.5))
    lengths = [len(" ".join(e.answers).split()) for e in examples]
    assert 60 <= min(lengths) <= 70
    assert 240 <= max(lengths) <= 250
    for example, length in zip(examples, lengths, strict=True):
        assert length == 5 * example.meta["keys"]
        assert example.meta["keys"] * FACT_TOKENS / example.meta["context_tokens"] == pytest.approx(0.5, abs=0.05)


def test_questions_for_recitals_of_one_context_differ_in_their_order_alone() -> None:
    examples = list(generate("recite", contexts=2, questions_per_context=3, min_tokens=256, max_tokens=256))
    for group in (examples[:3], examples[3:]):
        assert len({e.context for e in group}) == 1
        assert len({e.question for e in group}) == 3
        assert len({tuple(sorted(e.answers)) for e in group}) == 1


def test_a_chat_with_a_system_text_puts_it_before_the_first_turn() -> None:
    (example,) = generate("single", contexts=1, min_tokens=64, max_tokens=64)
    plain, with_text = chat(example), chat(example, "read the text .")
    assert plain[:2] == ["<bos>", "<user>"]
    assert with_text == ["<bos>", "<system>", "read", "the", "text", ".", *plain[1:]]


@given(st.one_of(st.just(0), st.integers(3, 400)), st.integers(0, 1000))
def test_filler_has_exactly_the_asked_number_of_words_and_never_a_value(n_tokens: int, seed: int) -> None:
    text = [word for sentence in filler_sentences(Dice(str(seed)), n_tokens) for word in sentence]
    assert len(text) == n_tokens
    assert not set(text) & set(words.VALUES)
    assert set(text) <= set(words.VOCABULARY)


def test_every_sentence_form_uses_known_words_and_slots_alone() -> None:
    for form in SENTENCES:
        assert set(form) <= set(words.VOCABULARY) | set(SLOTS)


@pytest.mark.parametrize("task", ["single", "multikey", "multiturn"])
def test_few_needles_with_long_values_keep_the_length_and_the_distance(task: str) -> None:
    for example in draw(task, (200, 300), keys=4, value_tokens=5):
        prompt, context = chat(example), example.context.split()
        at = int(example.meta["answer_token"])
        assert len(prompt) == example.meta["prompt_tokens"]
        assert context[at : at + 5] == example.answers[0].split()
        assert context[at - 2] == prompt[-3] == example.meta["name"]
        assert sum(word in words.VALUES for word in context) == 5 * (1 if task == "single" else 4)
        assert example.meta["keys"] == (1 if task == "single" else 4)


def test_draws_are_even() -> None:
    dice = Dice("even")
    counts = Counter(dice.pick("abcd") for _ in range(4000))
    assert max(counts.values()) - min(counts.values()) < 200
    assert sorted(dice.sample(range(50), 50)) == list(range(50))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"task": "twohop"}, "no task 'twohop'"),
        ({"contexts": 0}, "at least one context"),
        ({"questions_per_context": 0}, "at least one context"),
        ({"min_tokens": 16}, "prompts of 16 to 2048 tokens"),
        ({"min_tokens": 512, "max_tokens": 256}, "prompts of 512 to 256 tokens"),
        ({"questions_per_context": 2}, "can't carry 2 questions"),
        ({"task": "multikey", "density": 0.0}, "density 0.0"),
        ({"task": "multiturn", "earlier_turns": 0}, "earlier_turns 0"),
        ({"task": "multikey", "questions_per_context": 50}, "prompts of 128 to 2048 tokens"),
        ({"task": "multikey", "max_tokens": 8192}, "there are 256"),
        ({"task": "multikey", "keys": 0}, "keys 0"),
        ({"task": "multikey", "keys": 40}, "prompts of 128 to 2048 tokens"),
        ({"value_tokens": 0}, "value_tokens 0"),
        ({"task": "recite", "keys": 10}, "prompts of 128 to 2048 tokens"),
        ({"task": "recite", "density": 0.9, "max_tokens": 4096}, "there are 256"),
    ],
)
def test_impossible_parameters_are_refused_in_words(arguments: dict[str, Any], said: str) -> None:
    parameters: dict[str, Any] = {"task": "single", "contexts": 3, **arguments}
    with pytest.raises(ConfigError) as refused:
        next(generate(**parameters))
    assert said in str(refused.value)
    assert refused.value.where.startswith("dataset")
    assert refused.value.do
