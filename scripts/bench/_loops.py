"""Reference algorithms for metrics.py and scoring.py: what the published descriptions say, one answer after another."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

Loop = Callable[[str, tuple[str, ...], list[str] | None], float]
"""What was said, the golds, the class names -> best score over golds."""

_ZH_MARKS = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛"
    "｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_NO_MARKS = {ord(c): None for c in string.punctuation + _ZH_MARKS}


def best(one: Callable[[str, str], float]) -> Loop:
    def loop(said: str, golds: tuple[str, ...], classes: list[str] | None) -> float:
        return max((one(said, gold) for gold in golds), default=0.0)

    return loop


def overlaps(normalise: Callable[[str], str], said: Sequence[str], golds: Sequence[str]) -> float:
    """Sum of token F1 over answers that are normalised here and golds that are so already; equal texts (EM) count 1."""
    total = 0.0
    for text, gold in zip(said, golds, strict=True):
        bare = normalise(text)
        if bare == gold:
            total += 1
            continue
        a, b = bare.split(), gold.split()
        same = sum((Counter(a) & Counter(b)).values())
        total += 2 * same / (len(a) + len(b)) if same else 0.0
    return total


def first_line(said: str) -> str:
    return said.lstrip("\n").split("\n")[0]


def classification(said: str, golds: tuple[str, ...], classes: list[str] | None) -> float:
    line, score = first_line(said), 0.0
    for gold in golds:
        named = [name for name in classes or () if name in line]
        for term in named:
            if term in gold and term != gold:
                named.remove(term)
        if gold in named:
            score = max(score, 1 / len(named))
    return score


def rouge(said: str, gold: str) -> float:
    """ROUGE-L over sentences with a table in a dictionary."""
    hyp, ref = ([part.split() or [""] for part in text.split(".") if part] for text in (said, gold))
    if not hyp or not ref:
        return 0.0
    union: set[str] = set()
    for x in ref:
        for y in hyp:
            union |= _common_words(x, y)
    p, r = len(union) / len({w for s in hyp for w in s}), len(union) / len({w for s in ref for w in s})
    return 2 * (p * r / (p + r + 1e-8))


def _common_words(x: Sequence[str], y: Sequence[str]) -> set[str]:
    table: dict[tuple[int, int], int] = {}
    for i in range(len(x) + 1):
        for j in range(len(y) + 1):
            if i == 0 or j == 0:
                table[i, j] = 0
            elif x[i - 1] == y[j - 1]:
                table[i, j] = table[i - 1, j - 1] + 1
            else:
                table[i, j] = max(table[i - 1, j], table[i, j - 1])
    i, j, taken = len(x), len(y), set()
    while i and j:
        if x[i - 1] == y[j - 1]:
            taken.add(x[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1, j] > table[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return taken


def rouge_zh(said: str, gold: str) -> float:
    return rouge(" ".join(_chinese_words(said)), " ".join(_chinese_words(gold)))


def f1_zh(said: str, gold: str) -> float:
    a, b = (["".join(w.lower().translate(_NO_MARKS).split()) for w in _chinese_words(text)] for text in (said, gold))
    a, b = [w for w in a if w], [w for w in b if w]
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b)) if same else 0.0


def _chinese_words(text: str) -> list[str]:
    import jieba

    return list(jieba.cut(text, cut_all=False))


def code_sim(said: str, gold: str) -> float:
    line = ""
    for candidate in said.lstrip("\n").split("\n"):
        if "`" not in candidate and "#" not in candidate and "//" not in candidate:
            line = candidate
            break
    if line == gold:
        return 1.0
    return round(100 * SequenceMatcher(None, line, gold).ratio()) / 100 if line and gold else 0.0


def numbers(pattern: str) -> Callable[[str, str], float]:
    def one(said: str, gold: str) -> float:
        right = re.findall(pattern, gold)[0]
        found = re.findall(r"\d+", said)
        return sum(number == right for number in found) / len(found) if found else 0.0

    return one


def _printable(said: str) -> str:
    return re.sub(r"[\x00-\x1f]", "\n", said).strip()


def match_all(said: str, golds: tuple[str, ...], classes: list[str] | None) -> float:
    text = _printable(said)
    return sum(1.0 if gold.lower() in text.lower() else 0.0 for gold in golds) / len(golds)


def match_part(said: str, golds: tuple[str, ...], classes: list[str] | None) -> float:
    text = _printable(said)
    return max(1.0 if gold.lower() in text.lower() else 0.0 for gold in golds)


LOOPS: dict[str, Loop] = {
    "classification_first_line": classification,
    "classification_zh": classification,
    "rouge": best(rouge),
    "rouge_first_line": best(lambda said, gold: rouge(first_line(said), gold)),
    "rouge_zh": best(rouge_zh),
    "qa_f1_zh": best(f1_zh),
    "code_sim": best(code_sim),
    "count": best(numbers(r".+")),
    "retrieval": best(numbers(r"Paragraph (\d+)")),
    "retrieval_zh": best(numbers(r"段落(\d+)")),
    "string_match_all": match_all,
    "string_match_part": match_part,
}
