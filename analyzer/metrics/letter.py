"""Multiple choice: the letter that an answer settles on. docs/DATA.md lists the rules; in doubt there is none."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from analyzer.metrics import Meta, metric

_DECORATION = re.compile(r"[*_`$]|\\(?:boxed|text|mathrm|textbf|mathbf)\b|\\[()\[\]]|(?<=\{)\s*(?=[A-Za-z]\s*\})")
_SPACES, _LINES = re.compile(r"[^\S\n]+"), re.compile(r"(?: ?\n)+ ?")  # a long run would cost its square
_LATIN = "A-Za-z\u00c0-\u024f"  # the É of État is no end of a word
_BEFORE = rf"(?<![{_LATIN}0-9.+#-])(?<![A-Za-z]['’])"  # a letter alone: no I'm, X-ray, U.S., C++
_BEHIND = rf"(?![{_LATIN}0-9+#]|['’][{_LATIN}]|-[{_LATIN}]|\.[{_LATIN}])"
_OPEN, _CLOSE = r"[(\[{\"“'‘]?\s*", r"(?:\s*[)\]}\"”'’])?"
_CAPITAL = rf"{_BEFORE}[A-Z]{_BEHIND}"
_LETTER = rf"({_CAPITAL})"
_AND = r"(?:\s*,\s*(?:(?:and|or|nor)\s+)?|\s+(?:and|or|nor|&)\s+|\s*/\s*)"
# Possessive: to give a letter back never helps, and each could be given back in two ways. One without end costs its
# square.
_LIST = rf"({_OPEN}{_CAPITAL}{_CLOSE}(?>{_AND}{_OPEN}{_CAPITAL}{_CLOSE}){{0,40}}+)"
_NO_LIST = rf"(?!{_CLOSE}{_AND}{_OPEN}{_CAPITAL})"
_SMALL = r"(?<![A-Za-z0-9])(?<![A-Za-z]['’])([a-z])(?=\s*(?:[.)\]}\"”'’](?![A-Za-z])|$))"
_SURELY = r"(?:(?:clearly|therefore|thus|definitely|most\s+likely|probably|indeed|also|the)\s+)*"
_KIND = r"(?:(?:option|choice|letter|answer)\s+)?"

_WHOLE = re.compile(r"(?i)^[\W_]*(?:(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|option|choice)[\W_]*)?([a-z])[\W_]*$")
_SAID = re.compile(
    r"(?i:(?<!wrong )(?<!incorrect )\b(?:answer|choice|option|(?:right|correct|best)\s+one)\b"
    r"(?:\s+(?:here|to\s+(?:the|this)\s+question))?\s*"
    r"(?:(?:is|would\s+be|should\s+be|must\s+be|will\s+be)\b\s*:?|[:=]|->|→)\s*"
    rf"{_SURELY}{_KIND}|答案(?:是|为|選|选)?\s*[:：]?\s*){_OPEN}(?:{_LETTER}|{_SMALL}){_NO_LIST}"
)
_CHOSEN = re.compile(
    r"(?i:(?<!not )(?<!n't )(?<!n’t )(?<!never )\b(?:choose|chose|pick|picked|select|selected|going\s+with|go\s+with|"
    rf"opt\s+for|settle\s+on)\s+{_KIND}){_OPEN}{_LETTER}{_NO_LIST}"
)
_CONCLUDED = re.compile(
    r"(?i:\b(?:so|thus|therefore|hence)\b\s*,?\s*(?:it\s*(?:['’]s|(?:is|must\s+be|has\s+to\s+be|should\s+be)\b)\s*)?"
    rf"{_SURELY}{_KIND}){_OPEN}{_LETTER}{_CLOSE}(?=\s*(?:[.!]?\s*$|\n))"
)
_LABEL = re.compile(rf"({_CAPITAL})\s*[).\]:](?=\s)")
_LINE_OR_SENTENCE = re.compile(r"\n|[.;!?] ")
_LEADS = re.compile(
    rf"^[\W_]*(?:([A-Za-z])\s*[)\].:](?![A-Za-z0-9]|\s*\(?[A-Z][).])|([A-HJ-Z]){_NO_LIST}\s*(?:[-–—;,]\s|\n))"
)
_HELD = re.compile(
    rf"(?:{_OPEN}{_LETTER}{_CLOSE}|(?i:\b(?:option|choice|letter)\s+){_OPEN}([a-z])\b{_CLOSE})\s+(?i:(?:is|seems|must\s+be|would\s+be|looks)\s+{_SURELY}"
    r"(?:only\s+|most\s+)?(?:right|correct|best|answer|true|accurate|appropriate)\b)"
)
_BEGINS = re.compile(rf"^[\W_]*([B-HJ-Z])(?=\s){_NO_LIST}")
_ANY = re.compile(_LETTER)
_REJECTED = re.compile(
    r"(?i:(?:\b(?:not|never|cannot\s+be|nor|neither|rather\s+than|instead\s+of|than|except|unlike|"
    r"(?:rules?|ruled|ruling)\s+out|eliminat(?:e|es|ed|ing)|exclud(?:e|es|ed|ing))|n['’]t(?:\s+be)?)\s+"
    rf"(?:the\s+)?{_KIND}){_LIST}"
)
_WRONG = re.compile(
    rf"(?:({_CAPITAL}){_CLOSE}\s+(?i:is|was|seems|looks|does)|{_LIST}\s+(?i:are|were|seem|look|do|can|could|would|must))"
    r"(?i:\s*(?:not|n['’]t)\b|\s+(?:clearly\s+)?(?:wrong|incorrect|false|out|impossible|ruled\s+out)\b)"
)
_DOUBTED = re.compile(
    r"(?i)(?:(?:n['’]t|\bnot)\s+(?:think|believe|say|sure)\b[^.!?\n]*|\b(?:if|whether)\s+(?:the\s+)?(?:\w+\s+)?)$"
)
_SENTENCE = re.compile(r"(?:^|[.!?:\n])[\s\"“(]*$")
_WORD = re.compile(r"\s*(\S+)")
_GOES_ON = re.compile(r"\s+[a-z]")
_AFTER_LETTER = re.compile(r"\s+(?:is|was|because|since|as|and|or|but|seems|would|must|fits|matches|,)\b")
_GOLD = re.compile(
    r"^\s*(?:[(\[]\s*([A-Za-z])\s*[)\]](?![A-Za-z0-9])|([A-Za-z])\s*[).:](?![A-Za-z0-9])|([A-Za-z])\s*$)"
)


def letter_of(answer: str) -> str | None:
    """The option that an answer names, as a capital; None where it names none, or several and settles on none."""
    plain = unicodedata.normalize("NFKC", answer)  # （Ｂ） is (B)
    text = _LINES.sub("\n", _SPACES.sub(" ", _DECORATION.sub("", plain))).strip()
    if whole := _WHOLE.match(text):
        return whole.group(1).upper()
    against = [match.group() for rule in (_REJECTED, _WRONG) for match in rule.finditer(text)]
    against += [match.group() for match in _SAID.finditer(text) if _is_doubted(text, match)]
    rejected = {letter for words in against for letter in _ANY.findall(words)}
    listed = len(set(_heads(text))) > 1  # A: no. B: yes.
    for rule in (_SAID, _CHOSEN, _CONCLUDED, *(() if listed else (_LEADS,)), _HELD, _BEGINS):
        named = list(_named(rule, text, rejected))
        if named:
            return named[-1]  # an answer may correct itself
    others = set(_named(_ANY, text, rejected))
    return others.pop() if len(others) == 1 else None


def _heads(text: str) -> Iterator[str]:
    """Letters with a mark behind them that begin the text, a line or a sentence, whatever stands there that is no
    word."""
    end = 0  # of the newest one: another begins behind it
    for label in _LABEL.finditer(text):
        first = start = label.start()
        while first > end and not text[first - 1].isalnum():
            first -= 1
        if first == 0 or _LINE_OR_SENTENCE.search(text, first, start):
            yield label.group(1)
            end = label.end()


def gold_letter(gold: str) -> str | None:
    """The letter of a gold: `B`, `b`, `(B)`, `B.`, `B. Paris`, `B) Paris`; None for anything else."""
    match = _GOLD.match(unicodedata.normalize("NFKC", gold))
    return _letter(match)[0].upper() if match else None


@metric("choice_letter", format_ok=lambda prediction, meta: letter_of(prediction) is not None)
def choice_letter(prediction: str, golds: Sequence[str], meta: Meta) -> float:
    """1.0 if the letter that the answer settles on is a gold's letter."""
    letter = letter_of(prediction)
    return float(letter is not None and letter in {gold_letter(gold) for gold in golds})


def _named(rule: re.Pattern[str], text: str, rejected: set[str]) -> Iterator[str]:
    """Letters that a rule finds, in order, without pronouns, articles, rejected options and what is only supposed."""
    for match in rule.finditer(text):
        letter, start, end = _letter(match)
        if rule is _SAID and _is_doubted(text, match):
            continue
        if rule in (_BEGINS, _ANY) and letter in rejected:
            continue
        if not _is_word(text, letter, start, end):
            yield letter.upper()


def _is_doubted(text: str, match: re.Match[str]) -> bool:
    return _DOUBTED.search(text, max(0, match.start() - 80), match.start()) is not None


def _letter(match: re.Match[str]) -> tuple[str, int, int]:
    group = next(n for n in range(1, match.re.groups + 1) if match.group(n) is not None)
    return match.group(group), match.start(group), match.end(group)


def _is_word(text: str, letter: str, start: int, end: int) -> bool:
    """The pronoun I before a verb, and A as the article that begins a sentence."""
    if letter not in "AI" or not _GOES_ON.match(text, end):
        return False
    if letter == "I":
        return (word := _WORD.match(text, end)) is not None and word.group(1) != "is"
    return _SENTENCE.search(text, max(0, start - 80), start) is not None and not _AFTER_LETTER.match(text, end)
