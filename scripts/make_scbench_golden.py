"""Scores and prompts of the official SCBench code for rows made here: tests/analyzer/golden/scbench.jsonl and
tests/data/golden/scbench_prompts.json.

    git clone https://github.com/microsoft/MInference
    git -C MInference checkout fb56c917f618e8645f1cfc37535afd7424d78f0d
    python -m venv venv
    venv/bin/pip install tree_sitter==0.21.3 tree_sitter_languages==1.10.2 nltk==3.10.4 rouge_score==0.1.2 rich numpy
    venv/bin/python scripts/make_scbench_golden.py MInference/scbench

Of the checkout only its figures and hashes are kept. What its modules import and these functions don't use (torch,
transformers, vllm, jieba, rouge, tqdm, tempdir) is replaced by empty modules, and `evaluate`, whose metric is fetched
from a hub, by the one call of `rouge_score` that it makes. Each row of scores: metric, prediction, golds, meta, score.
A prompt is the SHA-256 of the texts that are sent turn by turn, under a chat template of this script.
"""

import argparse
import hashlib
import importlib
import json
import random
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
SCORES, PROMPTS = TESTS / "analyzer/golden/scbench.jsonl", TESTS / "data/golden/scbench_prompts.json"
STUBS = ("torch", "torch.profiler", "transformers", "jieba", "rouge", "tqdm", "tempdir", "args")

WORDS = (
    *("the", "harbour", "of", "Reval", "shipped", "grain", "and", "amber"),
    *("while", "a", "clerk", "wrote", "down", "every", "cart", "twice"),
)
HAN = "港口今年出口增长很快主席写信给公司"
FUNCTIONS = {
    "python": """def {n}(items, limit=3):
    total = 0
    for item in items:
        total += item * limit
    return total - {k}
""",
    "java": """public static int {n}(int[] items) {{
    int total = {k};
    for (int item : items) {{ total += item; }}
    return total;
}}
""",
    "typescript": """function {n}(items: number[]): number {{
  let total = {k};
  for (const item of items) {{ total += item; }}
  return total;
}}
""",
    "rust": """pub fn {n}(items: &[i64]) -> i64 {{
    let mut total = {k};
    for item in items {{ total += item; }}
    total
}}
""",
    "cpp": """int {n}(const std::vector<int>& items) {{
    int total = {k};
    for (int item : items) {{ total += item; }}
    return total;
}}
""",
    "go": """func {n}(items []int) int {{
    total := {k}
    for _, item := range items {{
        total += item
    }}
    return total
}}
""",
}
WRAPPED = {
    "python": "import math\n\nclass Box:\n    size = 1\n\n{f}\n\ndef other():\n    pass\n",
    "java": "class Box {{\n  int size;\n{f}\n  void other() {{}}\n}}\n",
    "typescript": "const size = 1;\n{f}\nfunction other() {{}}\n",
    "rust": "struct Box;\n{f}\nfn other() {{}}\n",
    "cpp": "struct Box {{ int size() {{ return 1; }} }};\nint* at() {{ return 0; }}\n{f}\nvoid other() {{}}\n",
    "go": "package main\n\nfunc (b *Box) Size() int {{ return 1 }}\n\n{f}\nfunc other() {{}}\n",
}


class Template:
    """A chat template: <role>text</>, an open assistant at the end. A system text of nothing is nothing."""

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool, tokenize: bool) -> str:
        text = "".join(f"<{m['role']}>{m['content']}</>" for m in messages)
        return text + ("<assistant>" if add_generation_prompt else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scbench", type=Path)
    folder = parser.parse_args().scbench
    scores, prompts = official(folder)
    rng = random.Random(20241212)
    SCORES.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scored(scores, rng)), encoding="utf-8"
    )
    PROMPTS.parent.mkdir(exist_ok=True)
    PROMPTS.write_text(json.dumps(hashes(prompts), indent=1) + "\n", encoding="utf-8")


def official(folder: Path) -> tuple[Any, Any]:
    """compute_scores and eval_utils of the checkout."""
    for name in STUBS:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torch"].profiler = sys.modules["torch.profiler"]  # type: ignore[attr-defined]
    for module, names in {
        "transformers": ("GenerationConfig", "SinkCache", "AutoConfig"),
        "rouge": ("Rouge",),
        "args": ("parse_args",),
    }.items():
        for name in names:
            setattr(sys.modules[module], name, None)
    sys.modules["tqdm"].tqdm = lambda items: items  # type: ignore[attr-defined]

    rouge_scorer = importlib.import_module("rouge_score.rouge_scorer")

    class Rouge:
        def compute(
            self, predictions: list[str], references: list[str], use_aggregator: bool
        ) -> dict[str, list[float]]:
            scorer = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=False)
            of = [
                scorer.score(gold, said)["rougeLsum"].fmeasure
                for said, gold in zip(predictions, references, strict=True)
            ]
            return {"rougeLsum": of}

    evaluate = types.ModuleType("evaluate")
    evaluate.load = lambda name: Rouge()  # type: ignore[attr-defined]
    sys.modules["evaluate"] = evaluate
    sys.path.insert(0, str(folder))
    return importlib.import_module("compute_scores"), importlib.import_module("eval_utils")


def scored(scores: Any, rng: random.Random) -> Iterator[dict[str, Any]]:
    def row(metric: str, task: str, prediction: str, label: Any, golds: list[str], **meta: Any) -> dict[str, Any]:
        score = scores.get_score_one(prediction, label, task, "")
        return {"metric": metric, "prediction": prediction, "golds": golds, "meta": meta, "score": score}

    for _ in range(20):
        key = f"{rng.getrandbits(64):016x}"
        for said in (key, f"The value is {key}.", key.upper(), key[:-1], f'{{"k": "{key}"}}', "", rng.choice(WORDS)):
            yield row("scbench_kv", "kv_retrieval", said, key, [key])
    for _ in range(30):
        names = ["".join(rng.choices("ABCDEFGHJK", k=5)) for _ in range(rng.randint(1, 7))]
        some = rng.sample(names, rng.randint(0, len(names)))
        said = rng.choice((", ", "\n", " ")).join(some)
        yield row("scbench_vt", "scbench_vt", rng.choice((said, said.lower(), f"VAR {said}.")), names, names)
    for _ in range(30):
        gold = " ".join(rng.sample(WORDS, rng.randint(1, 4)))
        said = rng.choice((gold, gold.upper(), f"  It is {gold}!", gold[:-1], "", gold.title()))
        yield row("scbench_qa_eng", "longdialogue_qa_eng", said, [gold], [gold])
    for gold in ("(A)", "B", "pos 1", "Ä?", "x", ""):
        for said in ("", "(", "a", "The answer is (C)", "b", "POS", "ä", gold, gold.lower(), f" {gold}\n"):
            yield row("scbench_many_shot", "scbench_many_shot", said, gold, [gold])
            yield row("scbench_many_shot", "scbench_many_shot", said, [gold, "B)"], [gold, "B)"], labels="list")
    for _ in range(40):
        gold = "".join(rng.sample(HAN, rng.randint(1, 5)))
        said = rng.choice(
            (gold, f"{gold}。", f"答案：{gold}", "".join(rng.sample(HAN, 4)), "", "！？", f"{gold} Ada, 1987")
        )
        yield row("scbench_qa_chn", "longbook_qa_chn", said, gold, [gold])
        yield row("scbench_qa_chn", "longbook_qa_chn", said, [gold, "主席"], [gold, "主席"], labels="list")
    for number in (7, 0, 12, -3, 1000000, 2.5, 7.0, 0.25):
        for said in (
            "7",
            "7.9",
            "The answer is 12",
            "-3",
            "3",
            "1,000,000",
            "2.5",
            "2.50",
            "0.25",
            "",
            "none",
            "０",
            "0012",
        ):
            yield row("scbench_mf", "math_find", said, number, [str(number)])
            yield row("scbench_mf", "math_find", said, [number], [str(number)])
    options = ("Ada wrote it", "Bob", "the clerk", "nobody; D")
    for at, gold in enumerate(options):
        letter = "ABCD"[at]
        for said in (
            *(
                *"ABCD",
                " B.",
                "b",
                "",
                *options,
                "(A)",
                "answer is: A",
                "The answer is B.",
                "answer: the clerk",
                "answer:",
            ),
            *(
                "I think answer is C",
                "option is  D",
                "It must be C or D",
                "so AB then",
                "the answer  is\nD",
                '"C"',
                "{D}",
            ),
            *("He said: answer is nobody; D", "none of them", "answer is", "ABCD", "answer is: \n B"),
        ):
            yield row("scbench_choice_eng", "longbook_choice_eng", said, [gold, letter], [gold, letter])
    for _ in range(60):
        gold = text(rng, rng.randint(1, 4))
        said = rng.choice(
            (gold, text(rng, rng.randint(1, 5)), noisy(rng, gold), noisy(rng, gold), gold.replace("\n", " "))
        )
        yield row("scbench_summary", "scbench_summary", said, gold, [gold])
    for said, gold in (("", "a b"), ("...", "a b"), ("a b", ""), ("A-b c2", "a b c2"), ("ä b", "b"), ("a\n\nb", "a b")):
        yield row("scbench_summary", "scbench_summary", said, gold, [gold])
    for gold in ("71432", "0", ""):
        for said in ("71432", "The pass key is 71432.", "7 1432", "", "none", "0071432", "０", "key 0"):
            yield row("scbench_passkey", "passkey", said, gold, [gold])
    yield from of_functions(rng)


def text(rng: random.Random, lines: int) -> str:
    return "\n".join(
        " ".join(rng.choices(WORDS, k=rng.randint(3, 14))) + rng.choice(("", ".", "!")) for _ in range(lines)
    )


def noisy(rng: random.Random, gold: str) -> str:
    words = [word for word in re.split(r"(\s+)", gold) if rng.random() > 0.2]
    for at in range(0, len(words), 7):
        words[at] = rng.choice(WORDS) + " "
    return "".join(words)


def of_functions(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Answers with one of four functions of a repository in them, in and out of code blocks."""
    repo_qa_utils = importlib.import_module("repo_qa_utils")
    for lang, pattern in FUNCTIONS.items():
        code = [pattern.format(n=name, k=k) for k, name in enumerate(("alpha", "beta", "gamma", "delta"))]
        needles = [["alpha", code[0]], ["beta", code[1]], ["gamma", code[2]], ["delta", code[3]]]
        named = [{"name": name, "needle": function} for name, function in needles]
        whole = WRAPPED[lang].format(f=code[1])
        for said in (
            *(
                code[1],
                f"```\n{code[1]}```",
                f"```{lang}\n{code[1]}```",
                f"Here it is:\n```{lang}\n{code[1]}```\nDone.",
            ),
            *(
                f"```{lang}\n{whole}```",
                whole,
                f"```\nno code here\n```\n```{lang}\n{code[1]}```",
                f"```{lang}\n{code[0]}```",
            ),
            *(f"```{lang}\n{code[1][: len(code[1]) * 2 // 3]}\n```", f"```{lang}\n{code[1]}", "", "```\n```", "beta"),
            *(f"```{lang}\n{noisy(rng, code[1])}\n```", f"```{lang}\n{code[1].replace('total', 'sum')}```"),
            f"```{lang}\n{code[1].replace('items', 'values', 1)}```",
            f"```{lang}\n{{{{ broken (\n{code[1]}```",
        ):
            # a score is a count over answers at 0.8, so each answer is scored alone
            preds = [{"lang": lang, "repo": "r", "func_name": "beta", "ground_truth": code[1], "prediction": said}]
            found = repo_qa_utils.compute_score("m", preds, [code[1]], {"r": named})
            yield {
                "metric": "scbench_repoqa",
                "prediction": said,
                "golds": [code[1]],
                "meta": {"lang": lang, "func_name": "beta", "needles": needles},
                "score": float(found["m"]["scores"]["all"][0.8]["pass@1"]),
                "fit": found["m"]["results"][lang][0]["best_similar_score"],
            }


def row_of(task: str) -> dict[str, Any]:
    """One row of a task in the published format, of three turns."""
    turns: list[dict[str, Any]] = [{"input": f"What is {k} {{x}} ?", "answer": f"value {k}"} for k in range(3)]
    row: dict[str, Any] = {"id": 7, "context": "line one\nline {two}\n", "multi_turns": turns}
    if task == "scbench_choice_eng":
        for k, turn in enumerate(turns):
            turn |= {"options": ["red", "green", "blue", "grey"], "answer": ("red", "blue", "grey")[k]}
    if task == "scbench_vt":
        for k, turn in enumerate(turns):
            turn["answer"] = [f"VAR{k}", "OTHER"]
    if task == "scbench_mf":
        row["context"] = [4, 8, 15]
        for k, turn in enumerate(turns):
            turn |= {"input": f"Look. The {('Largest', 'smallest', 'median')[k]} number is", "answer": (15, 4, 8)[k]}
    if task in ("scbench_repoqa", "scbench_repoqa_and_kv"):
        row |= {"lang": "python", "repo": "a/b"}
        for k, turn in enumerate(turns):
            turn["name"] = f"f{k}"
    for key, kinds in {
        "scbench_repoqa_and_kv": ("scbench_repoqa", "scbench_kv"),
        "scbench_summary_with_needles": ("scbench_summary", "scbench_passkey"),
    }.items():
        if task == key:
            for k, turn in enumerate(turns):
                turn["task"] = kinds[k % 2]
    return row


def hashes(prompts: Any) -> dict[str, dict[str, Any]]:
    """Of each task: the row, by mode the hash of what stands before the model at each turn, and the answer's length."""
    kept: dict[str, dict[str, Any]] = {}
    for task in sorted(set(prompts.multiturn_templates) - {"scbench_passkey", "scbench_kv_hard", "scbench_hashhop"}):
        if task == "scbench_kv_compressible":
            continue
        row = row_of(task)
        turns = prompts.create_multiturn_prompt(row, task, Template(), True)["prompts"]
        grown = ["".join(turns[: k + 1]) for k in range(len(turns))]
        first, *queries = prompts.create_scdq_prompt(row, task, Template(), True)["prompts"]
        most = prompts.DATA_NAME_TO_MAX_NEW_TOKENS[task]
        kept[task] = {
            "row": row,
            "multi_turn": [sha256(each) for each in grown],
            "scdq": [sha256(first + query) for query in queries],
            "max_new_tokens": max(most.values()) if isinstance(most, dict) else most,
        }
    return kept


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
