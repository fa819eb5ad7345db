"""The language of a text, by its script or by the small words that every sentence has.

A few dozen languages at most are told apart; what is short, or mixed, is left open.
"""

import re
import unicodedata

WORD = re.compile(r"[^\W\d_]+")
LEAST_WORDS = 8  # below, a text is left open
SHARE, AHEAD = 0.12, 0.05  # of its words, and ahead of the next language
SAMPLE = 2000  # characters that are looked at

# The first word of a letter's Unicode name -> language or script.
SCRIPTS = {
    "CYRILLIC": "Cyrillic", "GREEK": "Greek", "HEBREW": "Hebrew", "ARABIC": "Arabic",
    "DEVANAGARI": "Devanagari", "THAI": "Thai", "HANGUL": "Korean", "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese", "CJK": "Chinese", "BENGALI": "Bengali", "TAMIL": "Tamil",
}  # fmt: skip
SMALL_WORDS = {
    "English": "the of and to is that it was for with as on but his her not be are this have "
    "from i",
    "German": "der die und das ist nicht ein eine zu den mit auf sich auch für von dem war wie "
    "aber ich es im sind wird noch nur",
    "French": "le la les et est des une un du que dans pas pour qui sur au avec ce il elle plus je "
    "en ne se sont",
    "Spanish": "el la los que de y en un una es por con para no se las del lo como más su pero al "
    "muy está",
    "Italian": "il che di la è un una per non con sono del della le gli anche ma come più nel si i "
    "da questo",
    "Portuguese": "o a que de não uma um para com os do da em é mais se mas como foi muito na no "
    "as ao por",
    "Dutch": "de het een van en is dat niet op te zijn met voor die er aan ook maar ik ze hij was "
    "om heel",
    "Swedish": "och att det som en är på för inte med av den till ett om men har jag var så kan",
    "Polish": "nie się na jest że to do w z jak ale od tak po za i co bardzo film tylko by",
    "Turkish": "bir ve bu da de için çok ile ne ama gibi var olarak daha en o kadar",
    "Indonesian": "yang dan di ini itu tidak dengan untuk ada saya dari akan juga karena",
}
WORDS = {name: frozenset(words.split()) for name, words in SMALL_WORDS.items()}


def tell_language(text: str) -> str | None:
    """The name of a text's language or script; None where it is too short or not clear."""
    text = text[:SAMPLE]
    if not text.isascii() and (script := _script(text)) is not None:
        return script
    words = WORD.findall(text.casefold())
    if len(words) < LEAST_WORDS:
        return None
    held = {name: sum(word in small for word in words) for name, small in WORDS.items()}
    name = max(held, key=lambda one: held[one])
    best = held.pop(name)
    clear = best - max(held.values()) >= AHEAD * len(words)
    return name if clear and best >= SHARE * len(words) else None


def _script(text: str) -> str | None:
    """The script of most letters, where it is none of Latin; None for Latin. Japanese has Chinese
    characters among its own."""
    letters = [character for character in text if character.isalpha()]
    counts: dict[str, int] = {}
    for letter in letters:
        if not letter.isascii():
            name = SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0])
            if name is not None:
                counts[name] = counts.get(name, 0) + 1
    if not counts or sum(counts.values()) < len(letters) / 2:
        return None
    if counts.get("Japanese", 0) > 0.1 * len(letters):
        return "Japanese"
    return max(counts, key=lambda name: counts[name])
