"""What RULER's haystacks are made of: words, numbers, noise, and text that reads like an essay.

The words and the essay-like text are ours, so that nothing has to be fetched; published RULER numbers were made with
other word lists and with essays by Paul Graham, which `dataset.params.essay` can bring in.
"""

import re
import uuid
from functools import lru_cache

from kvt_async.data.sources.kvtext_text import Dice


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."

ADJECTIVES = _listed(
    "amber ancient arctic bitter bold brave brief bright brisk broad calm candid careful cheap clever coastal cold "
    "common crisp curious daily damp dark dear deep distant double dull eager early easy empty exact faint fair "
    "famous final fine firm flat fluent formal frank fresh frozen gentle giant glad golden grand grave great green "
    "grey happy hardy harsh heavy hidden hollow honest huge humble idle inner ivory jolly joint keen kind large "
    "late lean level light little lively local lone loud loyal lucid lucky major mellow merry mighty mild minor "
    "misty modern modest narrow native neat noble normal northern novel odd olive open outer pale plain polite "
    "proper proud pure quick quiet rapid rare raw ready recent red rich rigid ripe rocky rough round royal rural "
    "rustic salty scarce secret serene severe shallow sharp short silent silver simple sleek slow small smooth "
    "sober soft solar solid southern spare steady steep stern still strict strong subtle sudden sunny sweet swift "
    "tall tame tender thick thin tidy tiny tired tough tranquil true upper urban usual vague valid vast vivid warm "
    "weary western white whole wide wild wise witty wooden young zealous"
)
NOUNS = _listed(
    "acorn alley anchor anvil apple apron arrow attic autumn axle badge bakery balcony barley barrel basin beacon "
    "bell bench blanket boulder bramble branch brass brick bridge bronze brook broom bucket button cabin cable "
    "camel candle canoe canvas carpet castle cellar chalk chapel cherry chimney cider circle clay cliff clock cloud "
    "clover coach cobble comet compass copper coral cottage cradle crane crater crayon creek crystal curtain dagger "
    "daisy desert diamond dolphin donkey dragon drawer drum eagle easel echo elbow ember engine falcon feather "
    "fender fern ferry fiddle flint flute forest fossil fountain fox galaxy gallery garden garlic geyser ginger "
    "glacier glove goblet granite gravel grove guitar hammer harbor harvest hazel helmet heron hinge honey horizon "
    "hornet island jacket jewel journal kettle kitten ladder lagoon lantern lapel latch lemon lever library lily "
    "lizard locket lumber magnet mantle maple marble market meadow mirror mitten monsoon mortar mosaic nectar "
    "needle nickel nutmeg oasis orchard otter oven oyster paddle palace panther parcel parrot pebble pepper pewter "
    "piano pigeon pillow planet plaza pocket pollen pottery prairie prism pulley puzzle quarry quill rabbit raven "
    "ribbon river rocket saddle saffron sapphire satchel scarf sextant shadow shovel sickle signal sleigh socket "
    "spade sparrow spindle spruce stable statue summit sundial tavern temple thimble thistle thunder timber topaz "
    "torch tower trumpet tulip tunnel turnip turtle valley velvet violin walnut warbler wagon willow window winter "
    "wizard zephyr"
)
_FRAMES = (
    "Most people who begin with a {a} {n} learn to look at the {m} only much later.",
    "What makes a {n} useful is rarely the {m}, and almost never the {b} {k}.",
    "I used to think that a {a} {n} was a matter of taste.",
    "When someone asks why the {n} matters, the {a} answer is usually the right one.",
    "It took years before anyone noticed how {a} the {n} had become.",
    "There are two ways to look at a {n}, and the {b} one is harder to explain.",
    "If you start from the {m}, the {n} follows; if you start from the {n}, nothing does.",
    "A {a} {n} does not need a {b} {m} to be worth the effort.",
    "The trouble with every {n} is that it looks like a {m} from the outside.",
    "Nobody plans a {a} {n}, which is why the good ones surprise us.",
    "One test I like is to ask what the {n} would be without the {m}.",
    "In a {a} town the {n} tells you more than the {b} {m} ever could.",
    "So the question is not whether the {n} is {a}, but for whom.",
    "You can tell a {a} idea by how little it needs a {n}.",
    "Perhaps that is why the {m} survived while the {a} {n} was forgotten.",
    "The people who built the first {n} were {a} enough not to call it a {m}.",
    "Every {n} begins as a {m} that someone refused to throw away.",
    "It would be {a} to stop there, but the {n} has one more lesson.",
    "We remember the {n} because it was {a}, not because it was {b}.",
    "Work on the {n} in the morning, a friend told me, and on the {m} when you are tired.",
    "Seen from far away a {n} and a {m} are both {a}; up close they have nothing in common.",
    "That sounds {a}, yet most of what I know about the {n} came that way.",
    "The {b} version of this story has a {n} in it, and leaves out the {m}.",
    "And still the {a} {n} stands where the {k} used to be.",
)
_ONSETS = _listed("b br c cl d dr f fl g gr h j k l m n p pl pr r s sl st t tr v w z")
_VOWELS = _listed("a e i o u ai ea oo")
_CODAS = _listed("n r l s t m nd rk lt ck")


def key_words(dice: Dice) -> str:
    """adjective-noun: 48,000 and more of them."""
    return f"{dice.pick(ADJECTIVES)}-{dice.pick(NOUNS)}"


def number(dice: Dice) -> str:
    """Seven digits, the first not 0."""
    return str(1_000_000 + dice.below(9_000_000))


def uuid4(dice: Dice) -> str:
    return str(uuid.UUID(int=dice.below(1 << 52) << 76 | dice.below(1 << 52) << 24 | dice.below(1 << 24), version=4))


def word(dice: Dice) -> str:
    """One made-up word that can be read aloud, of two or three syllables."""
    parts = [dice.pick(_ONSETS) + dice.pick(_VOWELS) for _ in range(2 + dice.below(2))]
    return "".join(parts) + dice.pick(_CODAS)


def letters(dice: Dice, alphabet: str, n: int) -> str:
    return "".join(dice.pick(alphabet) for _ in range(n))


@lru_cache(maxsize=1 << 15)
def essay_sentence(index: int) -> str:
    """Sentence `index` of an endless text, the same whatever stands before it."""
    dice = Dice(f"essay sentence {index}")
    a, b = (dice.pick(ADJECTIVES) for _ in range(2))
    n, m, k = (dice.pick(NOUNS) for _ in range(3))
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", dice.pick(_FRAMES).format(a=a, b=b, n=n, m=m, k=k))


def sentences_of(text: str) -> list[str]:
    """A user's essays as sentences: white space collapsed, split after . ! ? and a space."""
    return [part for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if part]
