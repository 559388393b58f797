"""Texts as lists of words, the ways LongBench's script cuts them. What was cut stays cached: golds come again."""

import re
import string
from functools import lru_cache

from analyzer.metrics.chinese_segmenter import cut

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ZH_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣"
    "､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_NO_PUNCTUATION = {ord(c): None for c in string.punctuation}
_NO_ZH_PUNCTUATION = {ord(c): None for c in string.punctuation + _ZH_PUNCTUATION}


@lru_cache(maxsize=1 << 16)
def english_tokens(text: str) -> tuple[str, ...]:
    """Lower-case words without ASCII punctuation and articles."""
    return tuple(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


@lru_cache(maxsize=1 << 14)
def chinese_words(text: str) -> tuple[str, ...]:
    """jieba's words, white space and punctuation included; needs the `longbench` extra."""
    return tuple(cut(text))


@lru_cache(maxsize=1 << 14)
def chinese_tokens(text: str) -> tuple[str, ...]:
    """jieba's words in lower case, without Chinese and ASCII punctuation and white space."""
    return tuple(filter(None, map(bare_word, chinese_words(text))))


@lru_cache(maxsize=1 << 16)
def bare_word(word: str) -> str:
    """In lower case, without Chinese and ASCII punctuation and white space."""
    return "".join(word.lower().translate(_NO_ZH_PUNCTUATION).split())
