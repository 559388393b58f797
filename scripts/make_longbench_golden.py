"""Scores of the official LongBench script for answers made here: tests/analyzer/golden/longbench_metrics.jsonl.

    git clone https://github.com/THUDM/LongBench && git -C LongBench checkout 2e00731f8d0bff23dc4325161044d0ed8af94c1e
    python -m venv venv && venv/bin/pip install numpy setuptools jieba==0.42.1 rouge==1.0.1 fuzzywuzzy==0.18.0
    venv/bin/python scripts/make_longbench_golden.py LongBench/LongBench

python-Levenshtein must not be installed: fuzzywuzzy then computes with difflib. Of the checkout only its figures are
kept. Each row: task, prediction, answers, all_classes, score (best over answers, first-line rule applied).
"""

import argparse
import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "tests/analyzer/golden/longbench_metrics.jsonl"
FIRST_LINE = ("trec", "triviaqa", "samsum", "lsht")

_ENGLISH = (
    "The committee reviewed the annual budget of the northern ports and found an increase in grain exports. "
    "A second report, published in 1987, disagrees: tariffs fell by 3.5 percent. Ada Lovelace wrote to Mr. Babbage "
    "about the engine's cards. It wasn't the first letter; it was the last one. Rain delayed the opening ceremony."
)
EN = _ENGLISH.split()
ZH = (
    "会议讨论了今年的预算，主席认为港口的出口增长很快。第二份报告发表于1987年，作者不同意："
    "关税下降了3.5%！北京大学的研究人员写信给阿里巴巴公司，询问“机器”的用途。"
)
CODE = (
    "        for index, child in enumerate(self.children):",
    "return result[key] if key in result else default",
    "    private final Map<String, List<Integer>> cache = new HashMap<>();",
    'if (node == null) { throw new IllegalStateException("node"); }',
    "self.assertEqual(response.status_code, 200)",
    "\t\tconsole.log(`count: ${items.length}`);",
    "x = 1  # one",
)
TREC = (
    *("Food", "Date", "Number of something", "Other number", "number", "City", "Other location", "Other entity"),
    *("Individual", "Group or organization of person", "person", "Abbreviation", "Expression abbreviated"),
)
LSHT = ("体育", "法制伦理国内", "灾难事故", "法制", "国内", "文化艺术", "财经", "环境气象")
SPECIALS = ("", " ", "\n", "...", ". .", "the", "A an the", "!!!", "\n\n", "。", "，！？", "\u3000", "ﬁve Ⅷ ½", "É é é")


def pairs(rng: random.Random) -> Iterator[tuple[str, str, list[str], list[str] | None]]:
    """(task, prediction, answers, all_classes)."""
    for task in ("narrativeqa", "hotpotqa", "qasper", "triviaqa", "2wikimqa", "musique", "multifieldqa_en"):
        for _ in range(10):
            golds = [_english(rng, 1, 6) for _ in range(rng.randint(1, 3))]
            yield task, _noisy(rng, rng.choice(golds).split(), EN), golds, None
        for said in SPECIALS[:8]:
            yield task, said, [rng.choice(("the end", "", "unanswerable"))], None
    yield "triviaqa", "\n\nAda Lovelace\nQuestion: who?", ["ada lovelace"], None
    yield "triviaqa", " \nAda Lovelace", ["ada lovelace"], None
    yield "triviaqa", "Ada\r\nLovelace", ["ada", "lovelace"], None
    yield "narrativeqa", "It is the U.S.A.,\ta\x1fstate\u00a0of\u2003mind", ["usa state of mind"], None
    yield "narrativeqa", "the-rapist a\u0301 an_ the1", ["therapist a\u0301"], None
    yield "narrativeqa", "yes", [], None
    for task in ("gov_report", "qmsum", "multi_news", "samsum"):
        for size in (3, 8, 20, 60, 150):
            for _ in range(3):
                gold = _english(rng, size, size + 10)
                yield task, _noisy(rng, gold.split(), EN), [gold], None
        for said in SPECIALS:
            yield task, said, [_english(rng, 3, 9)], None
        yield task, "Ada wrote. Ada wrote. . cards the of", ["Ada. wrote to cards. of the the. ."], None
        yield task, "some words", [""], None
        yield task, "3.5 percent. 3 .5", ["3.5 percent", "5 percent 3"], None
    yield "samsum", "\nAda wrote a letter.\nDialogue: ...", ["Ada wrote a letter."], None
    yield "gov_report", " ".join(rng.choices(EN, k=300)).replace(".", ""), [" ".join(EN * 5).replace(".", "")], None
    yield "gov_report", " ".join(rng.choices(EN, k=900)).replace(".", ""), [" ".join(EN * 20).replace(".", "")], None
    for task in ("multifieldqa_zh", "dureader", "vcsum"):
        for _ in range(16):
            gold = _chinese(rng, 4, 40)
            yield task, _noisy_zh(rng, gold), [gold, _chinese(rng, 3, 9)][: rng.randint(1, 2)], None
        for said in SPECIALS:
            yield task, said, ["关税下降了"], None
        yield task, "北京\n大学 的\u3000研究，Budget 3.5%", ["北京大学的研究 budget 3.5"], None
    for task, classes in (("trec", TREC), ("lsht", LSHT)):
        for _ in range(30):
            named = rng.sample(classes, rng.randint(0, 4))
            yield (
                task,
                rng.choice(("", "\n", "Type: ")) + " or ".join(named) + rng.choice(("", "\nCity 体育")),
                [rng.choice(named or classes)],
                list(classes),
            )
        yield task, ", ".join(classes), [classes[1]], list(classes)
    yield "trec", "number, Other number", ["Other number"], ["number", "Other", "Other number", "r", "Date"]
    yield "trec", "Other number", ["Other number"], ["Other", "number", "Other number"]
    yield "lsht", "法制伦理国内", ["法制伦理国内"], ["法制", "国内", "伦理", "法制伦理国内"]
    for task, form in (
        ("passage_retrieval_en", "Paragraph {}"),
        ("passage_retrieval_zh", "段落{}"),
        ("passage_count", "{}"),
    ):
        for _ in range(12):
            n = rng.randint(1, 30)
            numbers = [form.format(rng.choice((n, n + 1, n * 10))) for _ in range(rng.randint(0, 4))]
            yield task, ", ".join(numbers) + rng.choice(("", ".", " of 30", " 007", " ٣")), [form.format(n)], None
        yield task, "", [form.format(3)], None
        yield task, "3.0", [form.format(3)], None
    for task in ("lcc", "repobench-p"):
        for _ in range(24):
            gold = rng.choice(CODE)
            yield (
                task,
                rng.choice(("", "\n", "```python\n", "# next\n", "\n \n")) + _noisy_code(rng, gold),
                [gold],
                None,
            )
        for said, gold in (
            ("", ""),
            ("", "x"),
            ("x", ""),
            ("# only\n// comments", "x = 1"),
            (" x", "x"),
            ("a\nb", "b"),
        ):
            yield task, said, [gold], None
        for size in (150, 199, 200, 260, 500):  # difflib treats texts of 200 characters and more in another way
            gold = "".join(rng.choices("abc (),=._", k=size))
            yield task, _noisy_code(rng, gold), [gold], None
            yield task, gold[: size // 2], [gold], None


def _english(rng: random.Random, low: int, high: int) -> str:
    start, n = rng.randrange(len(EN)), rng.randint(low, high)
    return " ".join((EN * (2 + n // len(EN)))[start : start + n])


def _chinese(rng: random.Random, low: int, high: int) -> str:
    start = rng.randrange(len(ZH))
    return (ZH * 2)[start : start + rng.randint(low, high)]


def _noisy(rng: random.Random, words: list[str], others: list[str]) -> str:
    kept = [w if rng.random() < 0.7 else rng.choice(others) for w in words if rng.random() < 0.85]
    if rng.random() < 0.3:
        rng.shuffle(kept)
    return rng.choice((" ", "  ", "\n")).join(kept) if rng.random() < 0.3 else " ".join(kept)


def _noisy_zh(rng: random.Random, text: str) -> str:
    return "".join(c if rng.random() < 0.85 else rng.choice(ZH + " \n") for c in text if rng.random() < 0.9)


def _noisy_code(rng: random.Random, text: str) -> str:
    return "".join(c if rng.random() < 0.9 else rng.choice("abcdef ()_.:=") for c in text if rng.random() < 0.92)


def official(checkout: Path) -> Any:
    """The checkout's table of tasks and metric functions."""
    sys.path.insert(0, str(checkout))
    if importlib.util.find_spec("Levenshtein"):
        raise SystemExit("python-Levenshtein is installed: fuzzywuzzy would not compute with difflib")
    return importlib.import_module("eval").dataset2metric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder with the official metrics.py and eval.py")
    metric_of = official(parser.parse_args().checkout)
    n = 0
    with OUT.open("w", encoding="utf-8") as out:
        for task, prediction, answers, classes in pairs(random.Random(20)):
            said = prediction.lstrip("\n").split("\n")[0] if task in FIRST_LINE else prediction
            scores = [float(metric_of[task](said, gold, all_classes=classes)) for gold in answers]
            pair = {"task": task, "prediction": prediction, "answers": answers, "all_classes": classes}
            row = {**pair, "score": max([0.0, *scores])}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            n += 1
    print(f"{n} pairs of {len(metric_of)} tasks: {OUT}")


if __name__ == "__main__":
    main()
