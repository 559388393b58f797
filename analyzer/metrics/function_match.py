"""Whether an answer repeats one function of a repository: RepoQA's score (Liu et al., 2024), as SCBench has it.

The function is taken out of the answer's first code block with tree-sitter, and compared with all functions that are
asked for in that repository by BLEU over what white space divides. It is right where the one that was meant fits best,
and by at least 0.8. Needs the `scbench` extra.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from analyzer.metrics.optional import load

LEAST = 0.8
_BLOCK = re.compile(r"^```(?:\w+)?\s*\n(.*?)(?=^```)```", re.DOTALL | re.MULTILINE)
_WHITE = re.compile(r"\s+")
_ORDERS = (1, 2, 3, 4)
_SMOOTHING = 5  # k of Chen and Cherry's method 4, as in nltk
_FUNCTIONS: Final = {
    "python": ("tree_sitter_python", "language", "function_definition"),
    "java": ("tree_sitter_java", "language", "method_declaration"),
    "typescript": ("tree_sitter_typescript", "language_typescript", "function_declaration"),
    "rust": ("tree_sitter_rust", "language", "function_item"),
    "cpp": ("tree_sitter_cpp", "language", "function_definition"),
    "go": ("tree_sitter_go", "language", "function_declaration"),
}
"""Language -> the module of its grammar, the grammar in it, and what a function is called there."""


def function_score(prediction: str, name: str, needles: Sequence[Sequence[str]], language: str) -> float:
    """1.0 where of the needles, (name, code) each, the one called `name` fits the answer best and well, else 0.0."""
    said, best, of_best = first_function(prediction, language), 0.0, ""
    for other, code in needles:
        if (fit := bleu(said, code)) > best:
            best, of_best = fit, other
    return float(of_best == name and best >= LEAST)


def first_function(answer: str, language: str) -> str:
    """The first function of the first code block that has one; of none, the first block; without a block, the answer.

    A language that RepoQA doesn't have is never parsed.
    """
    text = answer.strip()
    blocks = _BLOCK.findall(text)
    if not blocks:
        return text
    for block in blocks if language in _FUNCTIONS else ():
        data = block.encode()
        for node in _nodes(_parser(language).parse(data).root_node):
            if _is_function(node, language):
                return str(data[node.start_byte : node.end_byte].decode("utf-8", "replace"))
    return str(blocks[0])


def bleu(candidate: str, reference: str) -> float:
    """BLEU-4 of one text with smoothing by the candidate's length (Chen and Cherry 2014, method 4, as nltk has it)."""
    counts, n_said = _ngrams(candidate)
    wanted, n_wanted = _ngrams(reference)
    matched = [sum((counts[n] & wanted[n]).values()) for n in _ORDERS]
    if not matched[0]:
        return 0.0
    logs, zeros = [], 0
    for n, hits in zip(_ORDERS, matched, strict=True):
        total = max(1, n_said - n + 1)
        if hits:
            logs.append(0.25 * math.log(hits / total))
        elif n_said > 1:
            zeros += 1
            logs.append(0.25 * math.log(1 / (2**zeros * _SMOOTHING / math.log(n_said)) / total))
    brevity = 1.0 if n_said > n_wanted else math.exp(1 - n_wanted / n_said)
    return brevity * math.exp(math.fsum(logs))


@lru_cache(maxsize=2048)
def _ngrams(text: str) -> tuple[dict[int, Counter[tuple[str, ...]]], int]:
    words = _WHITE.split(text.strip())
    return {n: Counter(zip(*(words[k:] for k in range(n)), strict=False)) for n in _ORDERS}, len(words)


def _is_function(node: Any, language: str) -> bool:
    if node.type != _FUNCTIONS[language][2]:
        return False
    if language != "cpp":
        return node.child_by_field_name("name") is not None
    inner = node.child_by_field_name("declarator")
    if inner is None or inner.type != "function_declarator":
        return False
    name = inner.child_by_field_name("declarator")
    return name is not None and name.type == "identifier"


def _nodes(root: Any) -> Iterator[Any]:
    """A node before those within it, in the order of the text; without recursion, whatever the depth."""
    todo = [root]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(reversed(node.children))


@cache
def _parser(language: str) -> Any:
    module, grammar, _ = _FUNCTIONS[language]
    tree_sitter = load("tree_sitter")
    return tree_sitter.Parser(tree_sitter.Language(getattr(load(module), grammar)()))
