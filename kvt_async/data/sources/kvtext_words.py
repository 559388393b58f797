"""The vocabulary of kvtext and of the reference model: every token is one word.

The order is the token id: `VOCABULARY[i]` has id i. Changing any line here makes the shipped weights useless, so a test
pins the hash of the whole list.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>")
PAD, BOS, EOS, UNK, SYSTEM, USER, ASSISTANT = range(len(SPECIALS))

PUNCTUATION = (".", "?", ",")
FUNCTION_WORDS = _words(
    "the a of is was has what which who code belongs to list gives and then but while in on near at from with by for "
    "he she they it there later before after not very you answer question read text only"
)

# 256 invented names: none of them is a word of another kind, and no two share both syllables
NAMES = tuple(
    first + last
    for first in _words("ba do fe gi ka lu me no pa ri sa to ve wi xo zu")
    for last in _words("bin dor fal gus kem lan mir nox pel ras sil tov vek wyn yar zed")
)
VALUES = tuple(str(number) for number in range(300, 428))  # 128: two of them make an answer, 16,384 possible answers

PLACES = _words(
    "garden river market tower harbor forest bridge school kitchen village station library mill field valley castle "
    "beach museum office stable island bakery"
)
THINGS = _words(
    "lamp chair basket kettle ladder mirror blanket hammer bottle drum piano candle wagon rope carpet clock shovel "
    "bucket violin letter painting table"
)
ANIMALS = _words("dog cat horse goat fox owl hen duck crow sheep mouse bear")
ADJECTIVES = _words("old small heavy bright broken quiet clean narrow warm empty yellow round")
INTRANSITIVE = _words("slept waited smiled rested sang laughed worked talked listened walked")  # "X waited ."
TRANSITIVE = _words("found saw carried moved washed painted kept liked cleaned dropped fixed watched")
TIMES = _words("today yesterday early late often again twice alone soon slowly quietly always")
WEATHER = _words("rain snow wind fog sun storm")

VOCABULARY = (
    *SPECIALS,
    *PUNCTUATION,
    *FUNCTION_WORDS,
    *NAMES,
    *VALUES,
    *PLACES,
    *THINGS,
    *ANIMALS,
    *ADJECTIVES,
    *INTRANSITIVE,
    *TRANSITIVE,
    *TIMES,
    *WEATHER,
)
TOKEN_IDS = {word: index for index, word in enumerate(VOCABULARY)}
