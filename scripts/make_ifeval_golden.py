"""Decisions of IFEval's official checks for answers made here: tests/analyzer/golden/ifeval.jsonl.

    git clone https://github.com/google-research/google-research
    git -C google-research checkout 83282e4ec6e140949e0f51d04e279be7949409ff
    python -m venv venv && venv/bin/pip install absl-py immutabledict langdetect==1.0.9 nltk==3.10.4
    venv/bin/python -c "import nltk; nltk.download('punkt_tab', 'nltk_data')"
    NLTK_DATA=nltk_data venv/bin/python scripts/make_ifeval_golden.py google-research

The newer e6890f85757dd84e27ca6df2dd30651dafad28e0 differs in comments for type checkers alone. Of the checkout only its
decisions are kept. langdetect draws random numbers: its seed is set to 0, as the metric does. A letter to be counted is
one of a to z here, since for any other character these checks draw a letter.

Each row: instruction_id_list, kwargs, answer, strict and loose (a list of booleans each, one per instruction).
"""

import argparse
import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "tests/analyzer/golden/ifeval.jsonl"
Instructions = list[tuple[str, dict[str, Any]]]

PIECES = (
    *(
        "The harbour was quiet.",
        "Dr. Aldous met Mrs. Finch at 5 p.m. on Jan. 3rd.",
        "Why not?",
        "Really?! Yes!!",
        "Hm...",
    ),
    *("See fig. 2, e.g. the U.S. map, i.e. the small one.", "1. First point. 2. Second point.", "It cost $3.50. Fine."),
    *("* a point", "  * another", "- a third", "-", "*", "**", "* ", "*\n* two", "*bold*", "**bold**", "***", "* * *"),
    *("*two\nlines*", "** **", "*a* *b*", "**a** *b*", "****", "******", "*** ***", "a***b", " ****** ", "***\n\n***"),
    *(
        "[name]",
        "[]",
        "[a [b] c]",
        "[open",
        "close]",
        "[two\nlines]",
        "<<A title>>",
        "<<>>",
        "<< >>",
        "<<a>b>>",
        ">>x<<",
    ),
    *(
        "P.S. One more",
        "p. s. more",
        "P.P.S",
        "p.p.s",
        "P. P. S",
        "PS: no",
        "Section 1",
        "SECTION 2",
        "Section3",
        "section 4",
    ),
    *(
        "My answer is yes.",
        "My answer is maybe",
        "my answer is no.",
        "Any other questions?",
        '"Quoted."',
        '"',
        "'tis",
        '"Once',
    ),
    *(
        '{"a": [1, 2]}',
        "```json\n{}\n```",
        "```\n[]",
        "{'a': 1}",
        "NaN",
        "ocean",
        "OCEAN",
        "oceans",
        "tide, tide",
        "low-tide",
    ),
    *(
        "NASA",
        "U.S.A.",
        "I'M",
        "CAN'T",
        "WELL-KNOWN",
        "A",
        "B2B",
        "ÉTÉ",
        "#tag #two",
        "!!!",
        "thé",
        "straße",
        "über",
        "日本語。",
        "…",
    ),
)
JOINTS = (" ", " ", "\n", "\n\n", "\n\n\n", "", "\r\n", "\n \n")

PROSE = {  # own sentences, long enough that a language shows
    "en": "The lighthouse keeper wrote a long letter about the weather and the ships that passed every evening.",
    "es": "El farero escribió una carta larga sobre el tiempo y los barcos que pasaban cada tarde por la costa.",
    "pt": "O faroleiro escreveu uma longa carta sobre o tempo e os navios que passavam todas as noites por ali.",
    "fr": "Le gardien du phare a écrit une longue lettre sur le temps et les navires qui passaient chaque soir.",
    "de": "Der Leuchtturmwärter schrieb einen langen Brief über das Wetter und die Schiffe, die abends vorbeifuhren.",
    "it": "Il guardiano del faro scrisse una lunga lettera sul tempo e sulle navi che passavano ogni sera.",
    "ru": "Смотритель маяка написал длинное письмо о погоде и кораблях, которые проходили каждый вечер.",
    "uk": "Доглядач маяка написав довгого листа про погоду та кораблі, які проходили повз щовечора.",
    "bg": "Пазачът на фара написа дълго писмо за времето и корабите, които минаваха всяка вечер.",
    "pl": "Latarnik napisał długi list o pogodzie i statkach, które przepływały obok każdego wieczoru.",
    "fi": "Majakanvartija kirjoitti pitkän kirjeen säästä ja laivoista, jotka kulkivat ohi joka ilta.",
    "vi": "Người gác hải đăng đã viết một bức thư dài về thời tiết và những con tàu đi qua mỗi buổi tối.",
    "sw": "Mlinzi wa mnara aliandika barua ndefu kuhusu hali ya hewa na meli zilizopita kila jioni.",
    "ja": "灯台守は毎晩通り過ぎる船と天気について長い手紙を書きました。",
    "ko": "등대지기는 날씨와 매일 저녁 지나가는 배들에 대해 긴 편지를 썼습니다.",
    "zh": "灯塔看守人写了一封长信，谈论天气和每天晚上经过的船只。",
    "ar": "كتب حارس المنارة رسالة طويلة عن الطقس والسفن التي كانت تمر كل مساء.",
    "fa": "نگهبان فانوس دریایی نامه‌ای بلند درباره هوا و کشتی‌هایی نوشت که هر شب می‌گذشتند.",
    "ur": "مینار کے نگہبان نے موسم اور ہر شام گزرنے والے جہازوں کے بارے میں ایک لمبا خط لکھا۔",
    "he": "שומר המגדלור כתב מכתב ארוך על מזג האוויר ועל הספינות שעברו בכל ערב.",
    "hi": "प्रकाशस्तंभ के रखवाले ने मौसम और हर शाम गुजरने वाले जहाजों के बारे में एक लंबा पत्र लिखा।",
    "mr": "दीपगृहाच्या रखवालदाराने हवामान आणि दररोज संध्याकाळी जाणाऱ्या जहाजांबद्दल एक लांब पत्र लिहिले आहे.",
    "ne": "दीपस्तम्भका रखवालाले मौसम र हरेक साँझ जाने जहाजहरूको बारेमा एउटा लामो चिठी लेखे।",
    "bn": "বাতিঘরের রক্ষী আবহাওয়া এবং প্রতি সন্ধ্যায় যাওয়া জাহাজ নিয়ে একটি দীর্ঘ চিঠি লিখেছিলেন।",
    "gu": "દીવાદાંડીના રખેવાળે હવામાન અને દરરોજ સાંજે પસાર થતા જહાજો વિશે લાંબો પત્ર લખ્યો.",
    "pa": "ਚਾਨਣ ਮੁਨਾਰੇ ਦੇ ਰਾਖੇ ਨੇ ਮੌਸਮ ਅਤੇ ਹਰ ਸ਼ਾਮ ਲੰਘਦੇ ਜਹਾਜ਼ਾਂ ਬਾਰੇ ਇੱਕ ਲੰਮੀ ਚਿੱਠੀ ਲਿਖੀ।",
    "ta": "கலங்கரை விளக்கக் காவலர் வானிலை மற்றும் ஒவ்வொரு மாலையும் செல்லும் கப்பல்கள் பற்றி நீண்ட கடிதம் எழுதினார்.",
    "te": "దీపస్తంభ కాపలాదారు వాతావరణం మరియు ప్రతి సాయంత్రం వెళ్ళే ఓడల గురించి పొడవైన లేఖ రాశాడు.",
    "kn": "ದೀಪಸ್ತಂಭದ ಕಾವಲುಗಾರ ಹವಾಮಾನ ಮತ್ತು ಪ್ರತಿ ಸಂಜೆ ಹಾದುಹೋಗುವ ಹಡಗುಗಳ ಬಗ್ಗೆ ಉದ್ದನೆಯ ಪತ್ರ ಬರೆದನು.",
    "ml": "വിളക്കുമാടത്തിന്റെ കാവൽക്കാരൻ കാലാവസ്ഥയെയും എല്ലാ വൈകുന്നേരവും കടന്നുപോകുന്ന കപ്പലുകളെയും കുറിച്ച് കത്തെഴുതി.",
    "th": "คนเฝ้าประภาคารเขียนจดหมายยาวเกี่ยวกับอากาศและเรือที่แล่นผ่านทุกเย็น",
}


def kinds(rng: random.Random) -> dict[str, dict[str, Any]]:
    """Arguments of each type of instruction, drawn near to what short answers have."""
    relation, few = rng.choice(("less than", "at least")), rng.randint(0, 4)
    paragraphs = rng.randint(1, 4)
    return {
        "keywords:existence": {"keywords": rng.choice((["ocean"], ["tide", "ocean"], ["fig. 2", "Th.?"], ["É"]))},
        "keywords:frequency": {
            "keyword": rng.choice(("tide", " ocean", "a", ".")),
            "frequency": few,
            "relation": relation,
        },
        "keywords:forbidden_words": {"forbidden_words": rng.choice((["ocean"], ["tide", "quiet"], ["U.S"], ["thé"]))},
        "keywords:letter_frequency": {
            "letter": rng.choice("aTse"),
            "let_frequency": rng.randint(0, 12),
            "let_relation": relation,
        },
        "language:response_language": {"language": rng.choice([code for code in PROSE if code != "zh"])},
        "length_constraints:number_sentences": {"num_sentences": rng.randint(0, 12), "relation": relation},
        "length_constraints:number_paragraphs": {"num_paragraphs": few},
        "length_constraints:number_words": {"num_words": rng.choice((0, 3, 10, 20, 40)), "relation": relation},
        "length_constraints:nth_paragraph_first_word": {
            "num_paragraphs": paragraphs,
            "nth_paragraph": rng.randint(1, paragraphs),
            "first_word": rng.choice(("the", "Tis", "once", "ocean", "1", "quoted")),
        },
        "detectable_content:number_placeholders": {"num_placeholders": few},
        "detectable_content:postscript": {"postscript_marker": rng.choice(("P.S.", "P.P.S", " P.S. ", "PS:"))},
        "detectable_format:number_bullet_lists": {"num_bullets": few},
        "detectable_format:constrained_response": {},
        "detectable_format:number_highlighted_sections": {"num_highlights": few},
        "detectable_format:multiple_sections": {
            "section_spliter": rng.choice(("Section", "SECTION", " Section ", "S.")),
            "num_sections": few,
        },
        "detectable_format:json_format": {},
        "detectable_format:title": {},
        "combination:two_responses": {},
        "combination:repeat_prompt": {
            "prompt_to_repeat": rng.choice(("The harbour was quiet.", " hm", "Why not?\n\nreally"))
        },
        "startend:end_checker": {"end_phrase": rng.choice(("Any other questions?", " quiet. ", "Yes!!", "…"))},
        "startend:quotation": {},
        "change_case:capital_word_frequency": {"capital_frequency": rng.randint(0, 8), "capital_relation": relation},
        "change_case:english_capital": {},
        "change_case:english_lowercase": {},
        "punctuation:no_comma": {},
    }


def answers(rng: random.Random, name: str) -> Iterator[str]:
    """Answers to one type of instruction; many nearly follow it."""
    for _ in range(14):
        pieces = rng.choices(PIECES, k=rng.choice((1, 2, 4, 8, 16)))
        yield "".join(piece + rng.choice(JOINTS) for piece in pieces)
    if name == "language:response_language":
        for text in PROSE.values():
            yield text
        yield "12345 67 8.9"
        yield PROSE["de"] + " " + PROSE["en"]
    if name.startswith("change_case"):
        for text in (PROSE["en"], PROSE["fr"], "OK 1", "12 34", "NASA WON'T SAY. I'M FROM THE U.S.A. IT'S OK."):
            yield from (text, text.upper(), text.lower(), f"*Note:*\n{text.upper()}", f"{text.lower()}\nDone!")
    if name == "length_constraints:number_sentences":
        for _ in range(10):
            yield " ".join(
                rng.choices([piece for piece in PIECES if "." in piece or "!" in piece], k=rng.randint(3, 12))
            )
    if name == "detectable_format:json_format":
        yield from ('```json\n{"a": 1}\n```', "```JSON\n[1]```", '"text"', "", '{"a": 1} trailing', "```\n1\n```\n")
        yield 'Here it is:\n{"a": 1}\nDone.'
    if name == "combination:two_responses":
        yield from (
            "a\n******\nb",
            "a****** a",
            "******\na\n******\nb\n******",
            "a******b******c",
            "a\n******\n\n******\nb",
        )
    if name == "length_constraints:number_paragraphs":
        yield from ("a\n***\nb", "***\na\n***\nb\n***", "a\n***\n***\nb", "a *** b *** c", "a****b", "***")
    if name == "length_constraints:nth_paragraph_first_word":
        yield from (
            "The a\n\nOnce.\n\n1",
            "\n\nthe a",
            "'The' end",
            '"The" end\n\n\n\n\'"Tis it',
            "once,\n\nthe",
            "'\"once x\n\nThe!",
        )
    if name == "startend:quotation":
        yield from ('"a"', '"', '""', ' "a" \n', '"a', '*"a"*')
    if name == "startend:end_checker":
        yield from (
            "x Any other questions?",
            'Any other questions?"',
            "Any other questions? *",
            "ANY OTHER QUESTIONS?\nBye",
        )
    if name == "combination:repeat_prompt":
        yield from ("the harbour WAS quiet. Yes", "Sure:\nThe harbour was quiet. It was.", "**The harbour was quiet.**")


def obeying(rng: random.Random, name: str, given: dict[str, Any]) -> str:
    """An answer that follows one instruction, or nearly so."""
    n = next((value for value in given.values() if isinstance(value, int)), 0) + rng.choice((0, 0, 0, -1, 1))
    filler = rng.choices(PIECES, k=2)
    match name.partition(":")[2]:
        case "existence" | "forbidden_words":
            parts = [*next(iter(given.values())), *filler]
        case "frequency" | "letter_frequency":
            parts = [str(given.get("keyword") or given["letter"]).upper()] * n
        case "number_sentences" | "number_words" | "number_placeholders":
            parts = ["It rained." if name.endswith("sentences") else "[x]"] * n
        case "number_paragraphs":
            parts = ["\n***\n".join(["Rain"] * n)]
        case "nth_paragraph_first_word":
            parts = [f"{given['first_word']}{rng.choice(('', ',', ' of', 's'))} all"] * given["num_paragraphs"]
            return "\n\n".join(parts)
        case "postscript":
            parts = [*filler, str(given["postscript_marker"]), "Rain"]
        case "number_bullet_lists" | "number_highlighted_sections":
            parts = [rng.choice(("\n* a", "\n- b", "*c*", "**d**")) for _ in range(n)]
        case "constrained_response":
            parts = [rng.choice(("My answer is no.", "**My answer is yes.**", "My answer is *maybe*.")), filler[0]]
        case "multiple_sections":
            parts = [f"{str(given['section_spliter']).strip()} {at + 1}\nRain" for at in range(n)]
        case "repeat_prompt":
            parts = [str(given["prompt_to_repeat"]), *filler]
        case "end_checker":
            parts = [*filler, str(given["end_phrase"])]
        case "capital_word_frequency":
            parts = rng.choices(("NASA.", "WON'T", "A-B", "Rain"), k=n + 1)
        case "title":
            parts = [f"<<{filler[0]}>>", filler[1]]
        case "two_responses":
            parts = [filler[0], "******", filler[1]]
        case "english_capital" | "english_lowercase":
            text = PROSE["en"] if rng.random() < 0.8 else PROSE["it"]
            parts = [text.upper() if name.endswith("capital") else text.lower()]
        case "json_format":
            parts = [json.dumps({"a": filler})]
        case "quotation":
            parts = [f'"{filler[0]}"']
        case _:
            parts = [PROSE["en"].replace(",", "")]
    text = rng.choice((" ", "\n")).join(parts)
    return rng.choice((text, text, text, f"Sure:\n{text}", f"{text}\nDone.", f"**{text}**", f"\n{text}\n"))


def cases(rng: random.Random) -> Iterator[tuple[Instructions, str]]:
    names = list(kinds(rng))
    for name in names:
        for answer in answers(rng, name):
            yield [(name, kinds(rng)[name])], answer
        for _ in range(12):
            given = kinds(rng)[name]
            yield [(name, given)], obeying(rng, name, given)
    languages = [code for code in PROSE if code != "zh"]
    for code in languages:
        yield [("language:response_language", {"language": code})], PROSE[code]
        yield [("language:response_language", {"language": code})], f"Here you are:\n{PROSE[code]}"
    for size in (2, 3, 4, 6):
        for _ in range(30):
            chosen = rng.sample(names, size)
            asked = [(name, kinds(rng)[name]) for name in chosen]
            parts = [obeying(rng, *asked[at]) for at in range(rng.randint(1, size))]
            yield asked, rng.choice((" ", "\n")).join(parts)
    yield [("punctuation:no_comma", {}), ("startend:quotation", {})], ""
    yield [("punctuation:no_comma", {}), ("keywords:existence", {"keywords": ["a"]})], " \n "


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", help="folder that holds instruction_following_eval/")
    sys.path.insert(0, parser.parse_args().checkout)
    importlib.import_module("langdetect").DetectorFactory.seed = 0
    official = importlib.import_module("instruction_following_eval.evaluation_lib")
    with OUT.open("w", encoding="utf-8") as file:
        for instructions, answer in cases(random.Random(19)):
            names, kwargs = [name for name, _ in instructions], [given for _, given in instructions]
            example = official.InputExample(key=0, instruction_id_list=names, prompt="p", kwargs=kwargs)
            row = {"instruction_id_list": names, "kwargs": kwargs, "answer": answer}
            for way in ("strict", "loose"):
                judge = getattr(official, f"test_instruction_following_{way}")
                row[way] = [bool(x) for x in judge(example, {"p": answer}).follow_instruction_list]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
