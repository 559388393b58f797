"""Official scores of MRCR and LongBench v2 for answers made here: tests/analyzer/golden/{mrcr,longbench_v2}.jsonl.

    git clone https://github.com/stanford-crfm/helm && git -C helm checkout 63754d05db6f874e41a395880fb573890a13e791
    git clone https://github.com/THUDM/LongBench && git -C LongBench checkout 2e00731f8d0bff23dc4325161044d0ed8af94c1e
    python scripts/make_long_context_golden.py helm LongBench

The card of openai/mrcr publishes its scorer as a few lines of Python; HELM's OpenAIMRCRMetric says that it is adapted
from them (from the card at 204b0d4) and is what runs here, without the rest of HELM. Of LongBench's pred.py only
`extract_answer` runs.
Of the checkouts only their figures are kept. Rows of mrcr: prediction, answer, random_string_to_prepend, score; of
longbench_v2: prediction, answer, letter (null: none extracted), score.
"""

import argparse
import ast
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

GOLDEN = Path(__file__).parents[1] / "tests/analyzer/golden"
_ENGLISH = (
    "harbour lantern quiet river under morning letters carried across the old bridge while gulls turned above "
    "seventeen grey boats; nobody asked why the clock had stopped, or when it would be wound again."
)
WORDS = _ENGLISH.split()
MARKS = (".", "!", ";", ",\n", ".\n\n", "?", " -")
CHINESE = "今天早上港口很安静，灯笼挂在旧桥上。没有人问钟为什么停了；海鸥在灰色的船上飞。"


def mrcr_pairs(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """(prediction, answer, random string): lengths on both sides of difflib's 200 characters."""
    for size in (0, 1, 40, 180, 199, 200, 201, 400, 900, 2500):
        for _ in range(4):
            prefix, text = _prefix(rng), _prose(rng, size)
            other = _prose(rng, size)
            yield prefix + text, prefix + text, prefix
            yield prefix + _noisy(rng, text, 0.02), prefix + text, prefix
            yield prefix + _noisy(rng, text, 0.3), prefix + text, prefix
            yield prefix + other, prefix + text, prefix
            yield prefix + text[: size // 2], prefix + text, prefix
            yield prefix + other + text, prefix + text, prefix
            yield text, prefix + text, prefix  # the string is forgotten
            yield " " + prefix + text, prefix + text, prefix
            yield prefix, prefix + text, prefix
            yield prefix + " " + text, prefix + text, prefix
    for size in (60, 300):
        text = "".join(rng.choices(CHINESE, k=size))
        yield "x" + text, "x" + text, "x"
        yield "x" + _noisy(rng, text, 0.2), "x" + text, "x"
    yield "", "", ""
    yield "anything", "", ""
    yield "aB3", "aB3", "aB3"
    yield "aB3aB3 twice", "aB3 twice", "aB3"
    yield "aB3" + "!" * 900, "aB3" + _prose(rng, 400), "aB3"
    yield "aB3" + "a" * 300, "aB3" + "a" * 300, "aB3"
    yield "aB3" + "a" * 300, "aB3" + "a" * 250 + "b", "aB3"
    yield "no prefix in the answer", "the gold has none either", "no "


def letter_pairs(rng: random.Random) -> Iterator[tuple[str, str]]:
    """(prediction, the right letter)."""
    forms = (
        "The correct answer is ({}).",
        "The correct answer is {}",
        "**The correct answer is ({})**",
        "The correct answer is **{}**: because it says so.",
        "The correct answer is (*{}*)",
        '"The correct answer is ({})".',
        "Let me see. The correct answer is ({}), not ({}).",
        "The correct answer is {}. No: The correct answer is ({}).",
        "The correct answer is ({}). On reflection, The correct answer is ({}).",
        "the correct answer is ({})",
        "The correct answer is: ({})",
        "The correct answer is\n({})",
        "The correct answer is  ({})",
        "The correct answer is [{}]",
        "The correct answer is \\boxed{{{}}}",
        "The correct answer is option {}",
        "The correct  answer is ({})",
        "The Correct Answer is ({})",
        "({})",
        "{}",
        "Answer: {}",
        "The correct answer is ({}",
        "The correct answer is {}n unlikely one",
        "The *correct* answer is ({})",
    )
    for form in forms:
        for _ in range(5):
            letters = [rng.choice("ABCDEF") for _ in range(2)]
            yield form.format(*letters), rng.choice("ABCD" if rng.random() < 0.4 else letters)
    for said in ("", "The correct answer is ", "The correct answer is (a)", "The correct answer is (E)"):
        yield said, "A"


def _prefix(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=10))


def _prose(rng: random.Random, size: int) -> str:
    text = ""
    while len(text) < size:
        text += " ".join(rng.choices(WORDS, k=rng.randint(3, 12))).capitalize() + rng.choice(MARKS) + " "
    return text[:size]


def _noisy(rng: random.Random, text: str, share: float) -> str:
    return "".join(c if rng.random() > share else rng.choice("aeT .,Q") for c in text if rng.random() > share / 4)


def official_mrcr(checkout: Path) -> Callable[[str, str, str], float]:
    """HELM's metric; what it imports of HELM is given by name alone."""
    for name in (
        "adaptation.adapter_spec.AdapterSpec",
        "adaptation.request_state.RequestState",
        "metrics.metric.Metric",
        "metrics.metric.MetricMetadata",
        "metrics.metric_name.MetricName",
        "metrics.metric_service.MetricService",
        "metrics.statistic.Stat",
        "scenarios.scenario.CORRECT_TAG",
    ):
        module, _, attribute = f"helm.benchmark.{name}".rpartition(".")
        holder = sys.modules.setdefault(module, ModuleType(module))
        stand_ins: dict[str, Any] = {"Stat": _Stat, "MetricName": str, "CORRECT_TAG": "correct"}
        setattr(holder, attribute, stand_ins.get(attribute, object))
    for package in ("helm", "helm.benchmark", *(f"helm.benchmark.{p}" for p in ("adaptation", "metrics", "scenarios"))):
        sys.modules.setdefault(package, ModuleType(package))
    names: dict[str, Any] = {}
    source = (checkout / "src/helm/benchmark/metrics/openai_mrcr_metrics.py").read_text()
    exec(compile(source, "openai_mrcr_metrics.py", "exec"), names)
    metric = names["OpenAIMRCRMetric"]()

    def score(prediction: str, answer: str, prefix: str) -> float:
        reference = SimpleNamespace(tags=["correct"], output=SimpleNamespace(text=answer))
        instance = SimpleNamespace(references=[reference], extra_data={"random_string_to_prepend": prefix})
        result = SimpleNamespace(completions=[SimpleNamespace(text=prediction)])
        (stat,) = metric.evaluate_generation(None, SimpleNamespace(result=result, instance=instance), None, "")
        return float(stat.value)

    return score


class _Stat:
    def __init__(self, name: str) -> None:
        self.value = 0.0

    def add(self, value: float) -> "_Stat":
        self.value = value
        return self


def official_letter(checkout: Path) -> Callable[[str], str | None]:
    """`extract_answer` of pred.py, whose other parts need a GPU's libraries."""
    tree = ast.parse((checkout / "pred.py").read_text(encoding="utf-8"))
    (wanted,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "extract_answer")
    names: dict[str, Any] = {"re": re}
    exec(compile(ast.Module([wanted], []), "pred.py", "exec"), names)
    extract: Callable[[str], str | None] = names["extract_answer"]
    return extract


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("helm", type=Path, help="checkout of HELM")
    parser.add_argument("longbench", type=Path, help="checkout of LongBench")
    given = parser.parse_args()
    grade, extract = official_mrcr(given.helm), official_letter(given.longbench)
    rows: dict[str, list[dict[str, Any]]] = {"mrcr": [], "longbench_v2": []}
    for prediction, answer, prefix in mrcr_pairs(random.Random(19)):
        row = {"prediction": prediction, "answer": answer, "random_string_to_prepend": prefix}
        rows["mrcr"].append(row | {"score": grade(prediction, answer, prefix)})
    for prediction, answer in letter_pairs(random.Random(19)):
        letter = extract(prediction.strip())
        judged = {"letter": letter, "score": float(letter == answer)}
        rows["longbench_v2"].append({"prediction": prediction, "answer": answer, **judged})
    for name, made in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        (GOLDEN / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{len(made)} pairs: {GOLDEN / name}.jsonl")


if __name__ == "__main__":
    main()
