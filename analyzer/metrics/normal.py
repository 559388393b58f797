"""The normal form of a short answer, for `em` and `f1`. Pure, one text at a time; overlap.py has the same for columns.

Lower case, composed Unicode, no punctuation, single spaces. Punctuation that carries the value stays: signs, decimal
points, fractions, times, ranges, comparisons, per cent and money (`5 €` is `€5`), the marks of `C++`,
`C#`, `.NET`, `A-`, `Na+`. Separators of thousands go. A text of marks alone stays as it is.
"""

import re
import string
import unicodedata
from functools import cache, lru_cache

WHITE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space as a character class: what Unicode calls so, in any regular expression engine."""


_ASCII_MARKS = f"[{re.escape(string.punctuation)}]"


@cache
def punctuation() -> str:
    """A character class for any regular expression engine: ASCII punctuation and symbols, and Unicode's category P."""
    codes = range(0x20000)  # the planes beyond hold none
    marks = [c for c in codes if unicodedata.category(chr(c))[0] == "P" or chr(c) in string.punctuation]
    return "[" + "".join(f"\\U{code:08x}" for code in marks) + "]"


_MONEY = "$¢£¤¥฿\u20a0-\u20c0"
_INVISIBLE = "\xad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_FRACTIONS = ("12", "13", "23", "14", "34", "18", "38", "58", "78")
_SAME = {
    **dict.fromkeys(map(ord, _INVISIBLE), None),  # soft hyphens, marks of direction, spaces of no width
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width ASCII
    **dict.fromkeys(map(ord, "‘’′"), "'"),
    **dict.fromkeys(map(ord, "‐‑‒–−"), "-"),
    **dict.fromkeys(map(ord, "⁄∕"), "/"),
    **{ord(sign): f" {value[0]}/{value[1]} " for sign, value in zip("½⅓⅔¼¾⅛⅜⅝⅞", _FRACTIONS, strict=True)},
    ord("µ"): "μ",
    ord("ß"): "ss",
    ord("ς"): "σ",
}
_REWRITTEN = "".join(map(chr, _SAME)) + "\u0307"

SPECIAL = (
    rf"[{_REWRITTEN}]|[+#%‰°^<>≤≥={_MONEY}]|[.,:;/'*-][0-9]|-(?:[^0-9a-z-]|$)|(?:^|[^0-9a-z])(?:\.[^{WHITE}.]|-[a-z])|"
    " [*/] |"
    "[0-9][\xa0\u2009\u202f][0-9]"
)
"""A text in lower case without any match of this loses all of its punctuation; for any regular expression engine."""

_SPACES, _DIGIT = re.compile(f"[{WHITE}]+"), re.compile("[0-9]")
_THOUSANDS = re.compile(
    r"(?<![0-9.,'])(?:[0-9]{1,3}([,'\xa0\u2009\u202f])[0-9]{3}(?:\1[0-9]{3})*|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3})"
    r"(?![0-9]|[,'][0-9])"
)
_MONEY_BEFORE = re.compile(rf"(-?)([{_MONEY}]) ?(-?\.?)(?=[0-9])")
_MONEY_BEHIND = re.compile(rf"(-?\.?[0-9](?:[0-9.,]*[0-9])?) ?([{_MONEY}])(?! ?-?\.?[0-9])")
_OF_NUMBER = re.compile(r"(?<=[0-9]) (?=[%‰°])")
_PLUS_OF_EXPONENT = re.compile(r"(?<=[0-9]e)\+(?=[0-9])")
_COMPARED = re.compile(r"([<>≤≥]=?) (?=[-$.]?[0-9])")
_LETTER = r"[^\W\d_]"
_KEPT = re.compile(
    r"(?<=\d)(?:[.'-](?=\d)|[,:;/*^](?=-?\d)|\*(?=\*-?\d))|(?<=\d\*)\*(?=-?\d)"  # 3.5, 10:30, 1/2, 24-31, 2^3, 2**3
    r"|(?<=\de)-(?=\d)"  # 1e-5
    rf"|(?<![^\s(\[\"'+<>={_MONEY}-])\.(?=\w)"  # .5, .NET
    rf"|(?<![^\s(\[{{\"'`|*/<>=^:;,…~≈{_MONEY}])-(?=\.?\d|[∞√π]|[a-z](?![\w'-]))"  # -5, -∞, -x
    r"|(?<=\w)\+|(?<=\w\+)\+"  # C++, Na+, 18+
    rf"|(?<={_LETTER})\#(?!\w)"  # C#
    rf"|(?:(?<=^{_LETTER})|(?<=\W{_LETTER})|(?<=^{_LETTER}{_LETTER})|(?<=\W{_LETTER}{_LETTER}))-(?![\w-])"  # A-, Cl-
    r"|(?<![\w<>=])[<>](?==?[-$.]?\d)|(?<=[<>])=(?=[-$.]?\d)"  # <5, >=5
    r"|(?<=\w)[<>=^](?=[\w.-])"  # x=5
    r"|(?<=[\w)\]] )[+*/=^<>](?=[ =])|(?<= [<>=])=(?= )|(?<=\d )-(?= \d)"  # a + b
    r"|(?<=[a-z]\d)-(?![\w-])|(?<=[a-z]\d\d)-(?![\w-])"  # SO42-
    r"|(?<=\d)[%‰]|\$(?=-?\.?\d)"  # 50%, $5
)


@lru_cache(maxsize=1 << 14)  # budgets that change nothing give the same answer again
def normalise(text: str) -> str:
    """Normalised form of one text; "" for white space alone."""
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFC", text).lower().translate(_SAME).replace("i\u0307", "i")
    return _collapsed(_bare(text)) or _collapsed(text)


def token_f1(prediction: str, gold: str) -> float:
    """Token-overlap F1 of two normalised texts, multiplicities counted, in [0, 1]; both empty: 1, one empty: 0."""
    a, b = prediction.split(), gold.split()
    if not a or not b:
        return float(a == b)
    counts: dict[str, int] = {}
    for token in b:
        counts[token] = counts.get(token, 0) + 1
    common = 0
    for token in a:
        if counts.get(token, 0):
            counts[token] -= 1
            common += 1
    return 2 * common / (len(a) + len(b))


def _bare(text: str) -> str:
    """A text in lower case without the punctuation that carries nothing."""
    if _DIGIT.search(text):
        text = _THOUSANDS.sub(lambda number: re.sub(r"[^0-9]", "", number.group()), text)
        text = _COMPARED.sub(r"\1", _PLUS_OF_EXPONENT.sub("", text))  # < 5 is <5, 1e+5 is 1e5
        text = _MONEY_BEHIND.sub(r"\2\1", _OF_NUMBER.sub("", text))  # 5 € is €5
        text = _MONEY_BEFORE.sub(r" \2\1\3", text)
    return _marks(text).sub(lambda mark: mark.group() if _KEPT.match(text, mark.start()) else "", text)


def _marks(text: str) -> re.Pattern[str]:
    return re.compile(_ASCII_MARKS if text.isascii() else punctuation())


def _collapsed(text: str) -> str:
    return _SPACES.sub(" ", text).strip(" ")
