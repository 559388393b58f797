r"""Official scores of answers made here: tests/analyzer/golden/math_verify.jsonl, gsm8k.jsonl and gpqa_letter.jsonl.

    git clone https://github.com/EleutherAI/lm-evaluation-harness harness
    git -C harness checkout 4e7e0d47f33bc71070c1d38394bafbb52b117163
    git clone https://github.com/openai/simple-evals simple_evals
    git -C simple_evals checkout ee3b0318d8d1d9d72755a4120879be65f7c07e9e
    python -m venv venv
    venv/bin/pip install ./harness pyyaml pandas 'math-verify[antlr4_13_2]==0.9.0'
    PYTHONPATH=. venv/bin/python PATH_TO_KVT/scripts/make_math_golden.py

Of the checkouts only figures are kept. Each row: prediction, gold, and score; of GSM8K the score of each of its two
rules, whose patterns are read from the harness' own files.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "tests/analyzer/golden"
Pair = tuple[str, str]

RIGHT = (  # (gold, ways to write it)
    ("5", ("5", "5.0", "05", "+5", "5.", "\\frac{10}{2}", "2+3", "x = 5", "\\text{5}", "\\mathbf{5}", "5\\%")),
    ("-3", ("-3", "- 3", "\\minus 3", "-\\frac{6}{2}", "(-3)")),
    ("\\frac{3}{4}", ("\\frac{3}{4}", "\\dfrac34", "0.75", "3/4", ".75", "\\frac{6}{8}", "75\\%")),
    ("1234", ("1234", "1,234", "1{,}234", "1,\\!234", "1 234", "\\$1234", "1.234 \\times 10^3")),
    ("2\\sqrt{3}", ("2\\sqrt{3}", "\\sqrt{12}", "2 \\sqrt 3", "3.4641016151")),
    ("x^2 + 2x + 1", ("x^2+2x+1", "(x+1)^2", "1 + 2x + x^2", "y = x^2+2x+1", "(x+1)(x+1)")),
    ("(2, 3)", ("(2,3)", "\\left(2, 3\\right)", "(2, \\frac{6}{2})", "x=2, y=3")),
    ("[0, 1)", ("[0,1)", "\\left[0, 1\\right)", "0 \\le x < 1", "x \\in [0,1)")),
    ("(-\\infty, 2) \\cup (3, \\infty)", ("(-\\infty,2)\\cup(3,\\infty)", "(3,\\infty) \\cup (-\\infty,2)")),
    ("1, 2, 3", ("1,2,3", "3, 2, 1", "\\{1,2,3\\}", "1 \\text{ and } 2 \\text{ and } 3", "x = 1, x = 2, x = 3")),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\binom{1}{2}")),
    ("90^\\circ", ("90^\\circ", "90", "90^{\\circ}", "90 \\text{ degrees}", "\\frac{\\pi}{2}")),
    ("\\text{(C)}", ("\\text{(C)}", "C", "(C)", "\\text{C}", "\\textbf{(C)}")),
    ("\\text{north}", ("\\text{north}", "north", "\\text{North}", "\\mathrm{north}")),
    ("6 - 5i", ("6-5i", "6 - 5 i", "-5i + 6")),
    ("25_8", ("25_8", "25_{8}", "21", "25")),
    ("x \\ge 4", ("x \\ge 4", "4 \\le x", "[4, \\infty)", "x > 4")),
    ("y = 2x + 3", ("y = 2x+3", "2x+3", "2x - y + 3 = 0", "y - 3 = 2x")),
    ("3 \\pm \\sqrt{2}", ("3 \\pm \\sqrt{2}", "3+\\sqrt2, 3-\\sqrt2")),
    ("7 \\frac{1}{2}", ("7\\frac{1}{2}", "\\frac{15}{2}", "7.5")),
    ("0.\\overline{3}", ("0.\\overline{3}", "\\frac{1}{3}", "0.333333333")),
    ("12\\pi", ("12\\pi", "12 \\pi", "37.699111843")),
    ("073", ("073", "73", "73.", "0073")),
)
WRONG = (
    "6",
    "-5",
    "\\frac{4}{3}",
    "x^2 + 1",
    "(3, 2)",
    "[0, 1]",
    "\\text{south}",
    "D",
    "12",
    "\\emptyset",
    "",
    "?",
    "{",
)
AROUND = (
    "Therefore, the final answer is: $\\boxed{%}$. I hope it is correct",
    "Therefore, the final answer is: \\boxed{%}.",
    "\\boxed{%}",
    "We try $\\boxed{9}$ first. No, it is $\\boxed{%}$.",
    "**Answer:** $%$",
    "The final answer is $%$. I hope it is correct.",
    "so that \\[ % \\]",
    "thus \\( % \\) is what was asked.",
    "Answer: %",
    "%",
    "The answer is % and nothing else, since $1+1=2$.",
    "\\fbox{%}",
    "\\boxed{%",
    "\\boxed %",
    "First $a = 7$.\n\nStep 2: \\begin{align*} b &= 8 \\\\ c &= 9 \\end{align*}\n\n$$\\boxed{%}$$",
)
NOTHING = (
    *(
        "",
        " ",
        "\n",
        "$$",
        "$",
        "\\boxed{}",
        "I don't know.",
        "There is none.",
        "x" * 500,
        "5 " * 40,
        "\\boxed{5}" * 30,
    ),
    *("\\boxed{\\boxed{5}}", "\\boxed{5}\\boxed{6}", "\\boxed{5} or \\boxed{6}", "$5$, or maybe $6$", "5 6 7", "1/0"),
    *("\\boxed{\\frac{1}{0}}", "The answer is 5, which is not 6.", "$\\boxed{5}$ is wrong, it is $6$"),
    *("答案是 $\\boxed{5}$", "\\boxed{５}"),
)


def math_pairs(rng: random.Random) -> Iterator[Pair]:
    for gold, ways in RIGHT:
        for way in (*ways, *rng.sample(WRONG, 2)):
            for around in (AROUND[0], rng.choice(AROUND[1:])):
                yield around.replace("%", way), gold
    for said in NOTHING:
        yield said, "5"


NUMBERS = "72|1,000|$18|3.50|-4|0|1234567|5.|$1,234.50.|#### 9|007|2/3|12%|1e3"
PHRASES = (
    "#### %|The answer is %|The answer is %.|%|A: %\nQ: next 5|so %+1=%.|**%**|$%|%.|% dollars|####%|"
    "#### % #### 8|There are 3 bags of %.|He pays $% in all.\n\n#### %|\\boxed{%}|% .|...|%,"
)


def number_pairs(rng: random.Random) -> Iterator[Pair]:
    for gold in ("72", "1,000", "18", "3.50", "-4", "0", "1234567", "5", "9"):
        for phrase in PHRASES.split("|"):
            for number in (gold, rng.choice(NUMBERS.split("|"))):
                yield phrase.replace("%", number), gold
    for said in (
        "",
        "none",
        "\n",
        "$",
        "-",
        "..",
        "$.",
        "####",
        "#### ",
        "four",
        "４",
        "1\u00a0000",
        "3 -4",
        "7.\n",
        "x#### 72",
    ):
        yield said, "72"


LETTERS = (
    "Answer: %|answer: %|ANSWER:%|Answer : $%$|Answer:\t$%|**Answer:** %|**Answer: %**|Answer: (%)|"
    "The answer is %.|%|Answer: %) because|Answer: D\nAnswer: %|Answer: A or %|Answer:\n%|Answer: \\boxed{%}|"
    "Final Answer: %|Answer: %bc|Answer - %|The correct Answer: **%**|Answer: $\\text{%}$|"
)


def letter_pairs() -> Iterator[Pair]:
    for phrase in LETTERS.split("|"):
        for letter, gold in (("A", "A"), ("B", "A"), ("d", "D"), ("C", "C"), ("E", "A"), ("a", "A")):
            yield phrase.replace("%", letter), gold


def math_rule() -> Callable[[Pair], dict[str, Any]]:
    from math_verify import parse, verify

    return lambda pair: {"score": float(verify(parse(f"\\boxed{{{pair[1]}}}"), parse(pair[0])))}


def number_rule() -> Callable[[Pair], dict[str, Any]]:
    import yaml

    exact_match = import_module("lm_eval.api.metrics").exact_match_hf_evaluate
    filters_of = import_module("lm_eval.filters").build_filter_ensemble
    folder = Path(str(import_module("lm_eval").__file__)).parent / "tasks/gsm8k"

    def rule(file: str, name: str) -> Callable[[Pair], float]:
        task = yaml.safe_load((folder / file).read_text())
        given = next(each for each in task["filter_list"] if each["name"] == name)["filter"]
        parts = [(part["function"], {k: v for k, v in part.items() if k != "function"}) for part in given]
        names = ("regexes_to_ignore", "ignore_case", "ignore_punctuation")
        options = {key: task["metric_list"][0][key] for key in names}

        def score(pair: Pair) -> float:
            replies: Any = [[pair[0]]]
            for make in filters_of(name, parts).filters:
                replies = list(make().apply(replies, [{}]))
            matches = exact_match(replies, [f"It takes 2 steps.\n#### {pair[1]}"], **options)
            return float(matches["exact_match"])

        return score

    flexible, strict = rule("gsm8k-cot-zeroshot.yaml", "flexible-extract"), rule("gsm8k.yaml", "strict-match")
    return lambda pair: {"gsm8k_number": flexible(pair), "gsm8k_strict": strict(pair)}


def letter_rule() -> Callable[[Pair], dict[str, Any]]:
    pattern = import_module("simple_evals.common").ANSWER_PATTERN_MULTICHOICE

    def score(pair: Pair) -> dict[str, Any]:
        match = re.search(pattern, pair[0])
        return {"score": 1.0 if (match.group(1) if match else None) == pair[1] else 0.0}

    return score


def main() -> None:
    for name, pairs, rule in (
        ("math_verify", math_pairs(random.Random(19)), math_rule()),
        ("gsm8k", number_pairs(random.Random(19)), number_rule()),
        ("gpqa_letter", letter_pairs(), letter_rule()),
    ):
        rows = [{"prediction": pair[0], "gold": pair[1], **rule(pair)} for pair in dict.fromkeys(pairs)]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (OUT / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        scores = [value for row in rows for key, value in row.items() if key not in ("prediction", "gold")]
        print(f"{len(rows)} pairs, mean score {sum(scores) / len(scores):.2f}: {OUT / name}.jsonl")


if __name__ == "__main__":
    main()
