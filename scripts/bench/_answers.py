"""Answers that look like the tasks', for metrics.py: ANSWERS[name](rng) is one example, and calling it gives one of
its answers, so that the answers of several budgets share golds and classes. The first is full cache's.
"""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import orjson


@dataclass(frozen=True)
class Answer:
    said: str
    golds: tuple[str, ...]
    classes_json: str


Make = Callable[[], Answer]

_TREC = (
    "Food|Date|Order, rank|Speed|Disease and medicine|Word with a special property|Abbreviation|Language|Letter "
    "like a-z|Other entity|Animal|Expression abbreviated|Price|Techniques and method|Musical "
    "instrument|Mountain|Currency name|Event|Product|State|Individual|Organ of body|Reason|Manner of an "
    "action|City|Religion|Invention, book and other creative piece|Distance, linear measure|Temperature|Postcode "
    "or other code|Size, area and volume|Sport|Country|Other location|Lasting time of somethin|Equivalent "
    "term|Description of something|Weight|Vehicle|Color|Other number|Definition of something|Element and "
    "substance|Description of a person|Symbols and sign|Number of something|Plant|Percent, fraction|Group or "
    "organization of person|Title of a person"
)
TREC = _TREC.split("|")
_LSHT = (
    "农业、农村 军事 文学、艺术 体育 传媒业 电子信息产业 文化、休闲娱乐 社会、劳动 经济 服务业、旅游业 环境、气象 "
    "能源、水务、水利 财政、金融 教育 科学技术 对外关系、国际关系 矿业、工业 政治 交通运输、邮政、物流 灾难、事故 "
    "基本建设、建筑业、房地产 医药、卫生 法律、司法 商业、外贸、海关"
)
LSHT = _LSHT.split()
_CODE = (
    "        for index, child in enumerate(self.children):",
    "    private final Map<String, List<Integer>> cache = new HashMap<>();",
    "self.assertEqual(response.status_code, 200)",
    "        return Optional.ofNullable(repository.findById(identifier)).orElse(null);",
    "    logger.info('request %s took %.3f s', request.path, elapsed)",
)


def _example(rng: random.Random, golds: list[str], answer: Callable[[], str], classes: list[str] | None = None) -> Make:
    full, given = answer(), [0]
    named, right = orjson.dumps(classes).decode(), tuple(golds)

    def make() -> Answer:
        given[0] += 1
        same = given[0] == 1 or rng.random() < 1 / 3
        return Answer(full if same else answer(), right, named)

    return make


@cache
def _english() -> tuple[list[str], list[float]]:
    """5,000 made-up words, used as often as Zipf's law has it."""
    rng = random.Random(1)
    made = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(5000)]
    return made, [1 / rank for rank in range(1, 5001)]


def _text(rng: random.Random, length: int, sentence: int = 22) -> list[str]:
    drawn = rng.choices(_english()[0], weights=_english()[1], k=length)
    return [word + "." if i % sentence == sentence - 1 else word for i, word in enumerate(drawn)]


@cache
def chinese_dictionary() -> tuple[list[str], list[int]]:
    """jieba's words and how often each is used."""
    import jieba

    jieba.setLogLevel(40)
    jieba.initialize()
    used = [(word, n) for word, n in jieba.dt.FREQ.items() if n]
    return [word for word, _ in used], [n for _, n in used]


@cache
def _chinese_weights() -> list[int]:
    total, sums = 0, []
    for n in chinese_dictionary()[1]:
        sums.append(total := total + n)
    return sums


def _chinese(rng: random.Random, length: int) -> list[str]:
    drawn = rng.choices(chinese_dictionary()[0], cum_weights=_chinese_weights(), k=length)
    return [word + rng.choice("，。，、") if rng.random() < 0.12 else word for word in drawn]


def _edited(rng: random.Random, words: list[str], others: Callable[[int], list[str]]) -> list[str]:
    kept = [word for word in words if rng.random() < 0.8]
    return [word if rng.random() < 0.6 else others(1)[0] for word in kept] or others(1)


def _classes(classes: list[str]) -> Callable[[random.Random], Make]:
    def make(rng: random.Random) -> Make:
        gold = rng.choice(classes)

        def answer() -> str:
            named = gold if rng.random() < 0.6 else rng.choice(classes)
            extra = f" or {rng.choice(classes)}" if rng.random() < 0.05 else ""
            asked = " ".join(_text(rng, 8))
            form = rng.choice(
                ("{0}{1}\nQuestion: {2}?\nType:", " {0}{1}", "Type: {0}{1}\n{2}", "I think it is {0}{1} {2}")
            )
            return form.format(named, extra, asked)

        return _example(rng, [gold], answer, classes)

    return make


def _summary(low: int, high: int, *, first_line: bool = False) -> Callable[[random.Random], Make]:
    def make(rng: random.Random) -> Make:
        gold = _text(rng, rng.randint(low, high))
        tail = "\nDialogue: ..." if first_line else ""
        return _example(rng, [" ".join(gold)], lambda: " ".join(_edited(rng, gold, lambda n: _text(rng, n))) + tail)

    return make


def _chinese_text(low: int, high: int) -> Callable[[random.Random], Make]:
    def make(rng: random.Random) -> Make:
        gold = _chinese(rng, rng.randint(low, high))
        return _example(rng, ["".join(gold)], lambda: "".join(_edited(rng, gold, lambda n: _chinese(rng, n))))

    return make


def _code(rng: random.Random) -> Make:
    """The next line of code, and the model goes on."""
    gold = "".join(c if rng.random() < 0.95 else rng.choice(string.ascii_letters) for c in rng.choice(_CODE))

    def answer() -> str:
        if rng.random() < 0.3:
            return f"{gold}\n    pass\n"
        line = "".join(c if rng.random() < 0.85 else rng.choice("abcdef ()_.:=") for c in gold)
        return f"{rng.choice(('', '# next', '```'))}\n{line}\n" + "\n".join(rng.choices(_CODE, k=3))

    return _example(rng, [gold], answer)


def _number(form: str) -> Callable[[random.Random], Make]:
    def make(rng: random.Random) -> Make:
        gold = rng.randint(1, 30)

        def answer() -> str:
            said = form.format(gold if rng.random() < 0.5 else rng.randint(1, 30))
            return said + rng.choice(("", ".", f"\n\n{' '.join(_text(rng, 12))} {form.format(3)}", " of 30"))

        return _example(rng, [form.format(gold)], answer)

    return make


def _needles(n: int) -> Callable[[random.Random], Make]:
    def make(rng: random.Random) -> Make:
        golds = [f"{rng.randrange(10**6, 10**7)}" for _ in range(n)]

        def answer() -> str:
            said = ", ".join(gold for gold in golds if rng.random() < 0.8) or "none"
            return f" The special magic numbers for {' '.join(_text(rng, 3))} mentioned in the text are: {said}."

        return _example(rng, golds, answer)

    return make


ANSWERS: dict[str, Callable[[random.Random], Make]] = {
    "classification_first_line": _classes(TREC),
    "classification_zh": _classes(LSHT),
    "rouge": _summary(150, 450),
    "rouge_first_line": _summary(12, 30, first_line=True),
    "rouge_zh": _chinese_text(60, 250),
    "qa_f1_zh": _chinese_text(2, 25),
    "code_sim": _code,
    "count": _number("{}"),
    "retrieval": _number("Paragraph {}"),
    "retrieval_zh": _number("段落{}"),
    "string_match_all": _needles(4),
    "string_match_part": _needles(2),
}
