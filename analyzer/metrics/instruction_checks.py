"""The 25 verifiable instructions of IFEval (Zhou et al., 2023): each a function (answer, arguments) -> followed?

They decide as the authors' code does (google-research, instruction_following_eval), its quirks included, on
tests/analyzer/golden/ifeval.jsonl; where a quirk would surprise, the function names it. What the authors' code draws at
random when an argument is missing is refused here instead: `fault`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from analyzer.metrics.instruction_text import count_capital_words, count_sentences, language_of

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]

_RELATIONS = ("less than", "at least")
_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_WORD = re.compile(r"\w+")
_HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*[^\n*]*\*\*")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
_FENCES = ("```json", "```Json", "```JSON", "```")
_ENDS_A_WORD = frozenset(".,?!'\"")
LANGUAGES = frozenset(
    (
        *("ar", "bg", "bn", "de", "en", "es", "fa", "fi", "fr", "gu", "he", "hi", "it", "ja", "kn", "ko", "ml", "mr"),
        *("ne", "pa", "pl", "pt", "ru", "sw", "ta", "te", "th", "uk", "ur", "vi"),
    )
)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One type of instruction: its check, and the arguments that the check reads, each with the kind of its value.

    Kinds: number (a whole one from 0), relation, text, pattern (text that is searched as a regular expression), list
    (of patterns), letter, language.
    """

    check: Check
    arguments: Mapping[str, str]


def followed(name: str, arguments: Arguments, answer: str) -> bool:
    """Whether an answer follows one instruction of a type that exists; a blank answer follows none."""
    return bool(answer.strip()) and INSTRUCTIONS[name].check(answer, arguments)


def fault(name: object, arguments: object) -> str:
    """Why no answer can be judged by an instruction, as a clause; empty where one can."""
    if not isinstance(name, str) or name not in INSTRUCTIONS:
        return f"there is no instruction {name!r}"
    if not isinstance(arguments, Mapping):
        return f"the arguments of {name} are no object"
    for key, kind in INSTRUCTIONS[name].arguments.items():
        if (wrong := _wrong(kind, arguments.get(key))) is not None:
            return f"{name} needs {key}, {wrong}"
    if name == "length_constraints:nth_paragraph_first_word":
        nth, most = arguments["nth_paragraph"], arguments["num_paragraphs"]
        if not 1 <= nth <= most:
            return f"{name} needs nth_paragraph, a number from 1 to num_paragraphs ({most}), not {nth}"
    return ""


def _wrong(kind: str, value: Any) -> str | None:
    """What a value should be and isn't; None: it is."""
    match kind:
        case "number":
            is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            return None if is_number else f"a whole number, not {value!r}"
        case "relation":
            return None if value in _RELATIONS else f"'less than' or 'at least', not {value!r}"
        case "language":
            is_language = isinstance(value, str) and value in LANGUAGES
            return None if is_language else f"a language among {', '.join(sorted(LANGUAGES))}, not {value!r}"
        case "letter":
            is_letter = isinstance(value, str) and len(value) == 1
            return None if is_letter else f"one letter, not {value!r}"
        case "list":
            if not isinstance(value, list) or not value:
                return f"a list of texts, not {value!r}"
            return next((wrong for item in value if (wrong := _wrong("pattern", item)) is not None), None)
        case _:
            if not isinstance(value, str) or not value:
                return f"a text, not {value!r}"
    return None if kind != "pattern" or _compiles(value) else f"a regular expression, not {value!r}"


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _relates(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def existence(answer: str, given: Arguments) -> bool:
    """Every keyword is found, inside of words too."""
    return all(re.search(keyword, answer, re.IGNORECASE) for keyword in given["keywords"])


def frequency(answer: str, given: Arguments) -> bool:
    """Occurrences of the keyword, inside of words too."""
    count = sum(1 for _ in re.finditer(given["keyword"].strip(), answer, re.IGNORECASE))
    return _relates(count, given["relation"], given["frequency"])


def forbidden_words(answer: str, given: Arguments) -> bool:
    return not any(re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in given["forbidden_words"])


def letter_frequency(answer: str, given: Arguments) -> bool:
    """The letter may be any character, as # or !."""
    letter = given["letter"].strip().lower()
    count = Counter(answer.lower())[letter]
    return _relates(count, given["let_relation"], given["let_frequency"])


def response_language(answer: str, given: Arguments) -> bool:
    """An answer whose language can't be told (digits alone) counts as followed."""
    return language_of(answer) in (given["language"], None)


def number_sentences(answer: str, given: Arguments) -> bool:
    return _relates(count_sentences(answer), given["relation"], given["num_sentences"])


def number_paragraphs(answer: str, given: Arguments) -> bool:
    """Paragraphs between the dividers ***; only the first and the last may be blank, and then don't count."""
    parts = _DIVIDER.split(answer)
    if not all(part.strip() for part in parts[1:-1]):
        return False
    ends = parts[:1] if len(parts) == 1 else [parts[0], parts[-1]]
    return bool(len(parts) - sum(not end.strip() for end in ends) == given["num_paragraphs"])


def number_words(answer: str, given: Arguments) -> bool:
    count = sum(1 for _ in _WORD.finditer(answer))
    return _relates(count, given["relation"], given["num_words"])


def nth_paragraph_first_word(answer: str, given: Arguments) -> bool:
    r"""Paragraphs between two line breaks. Blank ones don't count, but keep their place when the nth is looked up."""
    paragraphs = answer.split("\n\n")
    number = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if given["nth_paragraph"] > number or number != given["num_paragraphs"]:
        return False
    words = paragraphs[given["nth_paragraph"] - 1].split()
    if not words:
        return False
    word = words[0].lstrip("'").lstrip('"')
    end = next((at for at, character in enumerate(word) if character in _ENDS_A_WORD), len(word))
    return bool("".join(character.lower() for character in word[:end]) == given["first_word"].lower())


def number_placeholders(answer: str, given: Arguments) -> bool:
    """Square brackets that close on their line, empty ones too."""
    count = 0
    for line in answer.split("\n"):
        at = 0
        while (opened := line.find("[", at)) >= 0 and (closed := line.find("]", opened)) >= 0:
            count, at = count + 1, closed + 1
    return bool(count >= given["num_placeholders"])


def postscript(answer: str, given: Arguments) -> bool:
    marker = given["postscript_marker"].strip()
    return re.search(_POSTSCRIPTS.get(marker, marker.lower()), answer.lower(), re.MULTILINE) is not None


def number_bullet_lists(answer: str, given: Arguments) -> bool:
    """Lines that begin with - or with one *. A line that is * alone takes the next line with it."""
    lines, count, at = [line.lstrip() for line in answer.split("\n")], 0, 0
    while at < len(lines):
        line, alone = lines[at], lines[at] == "*" and at + 1 < len(lines)
        count += alone or (line[:1] == "*" and line[1:2] not in ("", "*"))
        at += 2 if alone else 1
    count += sum(line[:1] == "-" for line in lines)
    return bool(count == given["num_bullets"])


def constrained_response(answer: str, given: Arguments) -> bool:
    return any(option in answer for option in _ANSWERS)


def number_highlighted_sections(answer: str, given: Arguments) -> bool:
    """*Text* and **text** on one line; a **text** may count as both, as the authors' code counts it."""
    single = sum(bool(text.strip("*").strip()) for text in _HIGHLIGHT.findall(answer))
    double = sum(bool(text[2:-2].strip()) for text in _DOUBLE_HIGHLIGHT.findall(answer))
    return bool(single + double >= given["num_highlights"])


def multiple_sections(answer: str, given: Arguments) -> bool:
    """Marks with a number behind them, "Section 3", anywhere."""
    parts = re.split(rf"\s?{given['section_spliter'].strip()}\s?\d+\s?", answer)
    return bool(len(parts) - 1 >= given["num_sections"])


def json_format(answer: str, given: Arguments) -> bool:
    """Any JSON value, inside of a code fence or not."""
    text = answer.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(answer: str, given: Arguments) -> bool:
    """<<Title>> on one line."""
    for line in answer.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def two_responses(answer: str, given: Arguments) -> bool:
    """Two different answers around ******; only what stands before the first and behind the last may be blank."""
    parts = [part.strip() for part in answer.split("******")]
    if not all(parts[1:-1]):
        return False
    responses = [part for part in parts if part]
    return len(responses) == 2 and responses[0] != responses[1]


def repeat_prompt(answer: str, given: Arguments) -> bool:
    return answer.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())


def end_checker(answer: str, given: Arguments) -> bool:
    return answer.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower())


def capital_word_frequency(answer: str, given: Arguments) -> bool:
    return _relates(count_capital_words(answer), given["capital_relation"], given["capital_frequency"])


def english_capital(answer: str, given: Arguments) -> bool:
    return answer.isupper() and language_of(answer) in ("en", None)


def english_lowercase(answer: str, given: Arguments) -> bool:
    return answer.islower() and language_of(answer) in ("en", None)


def no_comma(answer: str, given: Arguments) -> bool:
    return "," not in answer


def quotation(answer: str, given: Arguments) -> bool:
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


INSTRUCTIONS: Mapping[str, Instruction] = {
    "keywords:existence": Instruction(existence, {"keywords": "list"}),
    "keywords:frequency": Instruction(frequency, {"keyword": "pattern", "frequency": "number", "relation": "relation"}),
    "keywords:forbidden_words": Instruction(forbidden_words, {"forbidden_words": "list"}),
    "keywords:letter_frequency": Instruction(
        letter_frequency, {"letter": "letter", "let_frequency": "number", "let_relation": "relation"}
    ),
    "language:response_language": Instruction(response_language, {"language": "language"}),
    "length_constraints:number_sentences": Instruction(
        number_sentences, {"num_sentences": "number", "relation": "relation"}
    ),
    "length_constraints:number_paragraphs": Instruction(number_paragraphs, {"num_paragraphs": "number"}),
    "length_constraints:number_words": Instruction(number_words, {"num_words": "number", "relation": "relation"}),
    "length_constraints:nth_paragraph_first_word": Instruction(
        nth_paragraph_first_word, {"num_paragraphs": "number", "nth_paragraph": "number", "first_word": "text"}
    ),
    "detectable_content:number_placeholders": Instruction(number_placeholders, {"num_placeholders": "number"}),
    "detectable_content:postscript": Instruction(postscript, {"postscript_marker": "pattern"}),
    "detectable_format:number_bullet_lists": Instruction(number_bullet_lists, {"num_bullets": "number"}),
    "detectable_format:constrained_response": Instruction(constrained_response, {}),
    "detectable_format:number_highlighted_sections": Instruction(
        number_highlighted_sections, {"num_highlights": "number"}
    ),
    "detectable_format:multiple_sections": Instruction(
        multiple_sections, {"section_spliter": "pattern", "num_sections": "number"}
    ),
    "detectable_format:json_format": Instruction(json_format, {}),
    "detectable_format:title": Instruction(title, {}),
    "combination:two_responses": Instruction(two_responses, {}),
    "combination:repeat_prompt": Instruction(repeat_prompt, {"prompt_to_repeat": "text"}),
    "startend:end_checker": Instruction(end_checker, {"end_phrase": "text"}),
    "startend:quotation": Instruction(quotation, {}),
    "change_case:capital_word_frequency": Instruction(
        capital_word_frequency, {"capital_frequency": "number", "capital_relation": "relation"}
    ),
    "change_case:english_capital": Instruction(english_capital, {}),
    "change_case:english_lowercase": Instruction(english_lowercase, {}),
    "punctuation:no_comma": Instruction(no_comma, {}),
}
"""The types by the names that the data set gives them."""
