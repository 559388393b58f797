"""What of an answer is reasoning: it is stored, and never scored. Pure: texts in, texts out.

A server that separates reasoning sends it in a field of its own. Others leave it in the text, between marks; where the
chat template wrote the opening mark, the text holds the closing one alone. The patterns are written for Python's `re`
and for the Rust engine behind Polars alike: no look-around, no back-references, white space spelled out.
"""

import re

_NAMES = "think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis|(?:seed|mm):think|longcat_think"
OPENING = (
    rf"(?i:<[ \t\n]*(?:{_NAMES})[ \t\n]*>|\[THINK\]|◁think▷|<unused94>|"
    r"<\|(?:begin_of_thought|start_thinking|inner_prefix|think(?:ing)?)\|>|<\|channel>)"
)
"""Any opening mark; any of them may be closed by any of CLOSING, since models mix them up."""
CLOSING = (
    rf"(?i:<[ \t\n]*/[ \t\n]*(?:{_NAMES})[ \t\n]*>|\[/THINK\]|◁/think▷|<unused95>|"
    r"<\|(?:end_of_thought|end_thinking|inner_suffix|/think(?:ing)?)\|>|<channel\|>)"
)
CHANNEL = "<|channel|>"
"""Harmony: each message names its channel; `final` is the answer, `analysis` and `commentary` are not."""
BARE_CHANNELS = r"(?s:^[ \t\n]*analysis.*assistantfinal)"
"""Harmony where the server dropped the marks and left the words between them."""
UP_TO_FINAL = r"(?s:^.*<\|channel\|>)[ \t\n]*final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
AFTER_FINAL = r"(?s:<\|(?:channel|start|end|return|call)\|>.*)"
EMPTY = rf"(?i:<[ \t\n]*(?:{_NAMES})[ \t\n]*/[ \t\n]*>)"
PAIR = rf"(?s:{OPENING}.*?{CLOSING})|{EMPTY}"
UP_TO_CLOSING = rf"(?s:^.*{CLOSING})"
FROM_OPENING = rf"(?s:{OPENING}.*)"
_FRAMES = "answer|final_answer|response|output|solution"
BEFORE_ANSWER = rf"^[ \t\n]*(?i:<(?:{_FRAMES})>|<\|(?:begin_of_(?:solution|answer)|start_(?:response|text|answer))\|>)"
AFTER_ANSWER = rf"(?i:</(?:{_FRAMES})>|<\|(?:end_of_(?:solution|answer)|end_(?:response|text|answer))\|>)[ \t\n]*$"
"""What frames the answer behind reasoning, as the models write it that frame their reasoning too."""
HINT = r"[<\[◁]|^[ \t\n]*analysis"
"""Every text with a mark matches this; so do some without."""
MARK = rf"{OPENING}|{CLOSING}|{EMPTY}|<\|channel\|>|{BARE_CHANNELS}"

_HINT, _MARK = re.compile(HINT), re.compile(MARK)
_CHANNELS = [re.compile(pattern) for pattern in (UP_TO_FINAL, AFTER_FINAL)]
REST = (BARE_CHANNELS, PAIR, UP_TO_CLOSING, FROM_OPENING, BEFORE_ANSWER, AFTER_ANSWER)
"""What is taken out of a text with a mark, in this order."""
_PAIR, _EMPTY = re.compile(PAIR), re.compile(EMPTY)
_REST = [_PAIR if pattern is PAIR else re.compile(pattern) for pattern in REST]
_OPENING, _CLOSING = re.compile(OPENING), re.compile(CLOSING)
_WHITE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def has_reasoning(text: str) -> bool:
    """Whether any mark of reasoning stands in a text."""
    return _HINT.search(text) is not None and _MARK.search(text) is not None


def closes_what_it_never_opened(text: str) -> bool:
    """Whether a text goes on from reasoning that was opened before it: a closing mark, and no opening one ahead."""
    closing, opening = _CLOSING.search(text), _OPENING.search(text)
    return closing is not None and (opening is None or opening.start() > closing.start())


def strip_reasoning(text: str) -> str:
    """The answer alone, without white space around it.

    Between an opening and the next closing mark, up to the last closing mark that none opened, and from an opening mark
    that none closes to the end, all is reasoning. With harmony channels the last `final` message is the answer, and
    without one there is none. Marks that frame the answer behind reasoning go with it.
    """
    if has_reasoning(text):
        for pattern in [*(_CHANNELS if CHANNEL in text else ()), *_REST]:
            text = _without_pairs(text) if pattern is _PAIR else pattern.sub("", text)
    return text.strip(_WHITE)


def _without_pairs(text: str) -> str:
    """Nothing pairs behind the last closing mark: looked for there, each opening one would cost a search to the end."""
    last = 0
    for mark in _CLOSING.finditer(text):
        last = mark.end()
    return _PAIR.sub("", text[:last]) + _EMPTY.sub("", text[last:])


def left_open(text: str) -> str | None:
    """The opening mark that a text leaves open, None for none: an answer to such a prompt begins with reasoning."""
    marks = list(_OPENING.finditer(text))
    return marks[-1].group() if marks and not _CLOSING.search(text, marks[-1].end()) else None
