"""IFEval: whether an answer follows instructions that a program can check. docs/DATA.md lists the types.

An example's instructions lie in its meta, as IFEval publishes them: `instruction_id_list`, the types, and `kwargs`, the
arguments of each. There are no golds. Loose judgement takes the best of eight readings of an answer for each
instruction: as it is, without its first line, its last one or both, and each of these without asterisks.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from analyzer.metrics import Meta, metric_without_golds
from analyzer.metrics.instruction_checks import fault, followed
from kvt_async.contract.vocabulary import SUM

NAMES, ARGUMENTS = "instruction_id_list", "kwargs"


def meta_fault(meta: Meta) -> str:
    """Why an example's instructions can't be judged, as a clause; empty where they can."""
    names, arguments = meta.get(NAMES), meta.get(ARGUMENTS)
    if not isinstance(names, list) or not names:
        return f"meta.{NAMES} is no list of instructions"
    if not isinstance(arguments, list) or len(arguments) != len(names):
        return f"meta.{ARGUMENTS} is no list with the arguments of each instruction"
    return next((wrong for name, given in zip(names, arguments, strict=True) if (wrong := fault(name, given))), "")


def judged(answer: str, meta: Meta, *, loose: bool = False) -> list[bool]:
    """Whether an answer follows each instruction of an example, in their order. `meta` has no fault."""
    readings = _readings(answer) if loose else (answer,)
    instructions: Sequence[tuple[str, Mapping[str, Any]]] = list(zip(meta[NAMES], meta[ARGUMENTS], strict=True))
    return [any(followed(name, given, reading) for reading in readings) for name, given in instructions]


def parts(answer: str | None, meta: Meta, *, loose: bool = False) -> dict[str, float]:
    """The share that an answer follows of each type of instruction, and whether it follows all of so many at once."""
    names = meta[NAMES]
    follows = [True] * len(names) if answer is None else judged(answer, meta, loose=loose)
    by_type: dict[str, list[bool]] = {}
    for name, one in zip(names, follows, strict=True):
        by_type.setdefault(name, []).append(one)
    shares = {name: sum(each) / len(each) for name, each in by_type.items()}
    return shares | {f"{SUM}{len(names)} instruction{'s' * (len(names) > 1)}": float(all(follows))}


_judges = partial(metric_without_golds, needs_meta=(NAMES, ARGUMENTS), meta_fault=meta_fault)


@_judges("ifeval_strict", parts=parts)
def ifeval_strict(answer: str, meta: Meta) -> float:
    """1.0 if an answer follows all its instructions, else 0.0: IFEval's prompt-level strict accuracy.

    Source: Zhou et al. (2023), google-research/instruction_following_eval; equal on tests/analyzer/golden/ifeval.jsonl.
    """
    return float(all(judged(answer, meta)))


@_judges("ifeval_loose", parts=partial(parts, loose=True))
def ifeval_loose(answer: str, meta: Meta) -> float:
    """The same with the loose judgement: IFEval's prompt-level loose accuracy."""
    return float(all(judged(answer, meta, loose=True)))


@_judges("ifeval_instructions", parts=parts)
def ifeval_instructions(answer: str, meta: Meta) -> float:
    """The share of an example's instructions that its answer follows strictly.

    IFEval's instruction-level accuracy pools the instructions of all examples; a mean over examples weighs each example
    once, however many instructions it has.
    """
    follows = judged(answer, meta)
    return sum(follows) / len(follows)


def _readings(answer: str) -> list[str]:
    lines = answer.split("\n")
    cut = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*cut, *(text.replace("*", "") for text in cut)]))
