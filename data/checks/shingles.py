"""Texts as sets of short sequences of words, and how much of two of them is the same.

Broder 1997, "On the resemblance and containment of documents".
"""

import re
from collections import Counter
from collections.abc import Iterable

from data.clean import normalise

WORD = re.compile(r"\w+")
# Letters of scripts that set no blanks between words, with their vowel signs: Thai, Lao, Myanmar,
# Khmer, kana, ideographs.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u3005-\u3007\u3040-\u30fa"
    "\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
LETTER = re.compile(f"[{UNSPACED}]")
ELSE = re.compile(f"[^\\W{UNSPACED}]+")  # words of the other scripts
# Emoji, signs and smileys say as much as a word does, and often the opposite of another one.
SIGN = "[\u2190-\u2bff\U0001f000-\U0001faff]|[:;=][-'^]?[()\\[\\]|/\\\\*]"
TOKEN = re.compile(rf"\w+|{SIGN}")
CHARACTER = re.compile(rf"[\w{UNSPACED}]|{SIGN}")
WORDS = 3  # of a shingle
LETTERS = 5  # of a shingle where there are no blanks between words


def shingles(text: str) -> set[str]:
    """Every sequence of WORDS words of a text, whatever its case, tags and punctuation; of a text
    without blanks every LETTERS letters. A shorter text is one shingle, an empty one none."""
    words, size, between = _words(text)
    if not words:
        return set()
    starts = range(max(1, len(words) - size + 1))
    return {between.join(words[i : i + size]) for i in starts}


def count_words(text: str) -> Counter[str]:
    """How often each word stands in a text, in whatever order; of a text without blanks each
    letter."""
    return Counter(_words(text)[0])


def _words(text: str) -> tuple[list[str], int, str]:
    """The words or letters of a text, how many make a shingle, and what stands between them. A text
    that has neither, as "???", is one word."""
    text = normalise(text)
    if has_no_blanks(text):
        return CHARACTER.findall(text), LETTERS, ""
    return TOKEN.findall(text) or ([text] if text else []), WORDS, " "


def has_no_blanks(text: str) -> bool:
    """Whether a text is written without blanks between words, by its script: more such letters than
    words of other scripts."""
    return not text.isascii() and len(LETTER.findall(text)) > len(ELSE.findall(text))


def have_no_blanks(texts: Iterable[str]) -> bool:
    """Whether most of some texts are written without blanks between words."""
    told = [has_no_blanks(text) for text in texts]
    return 2 * sum(told) > len(told)


def shared_words(left: Counter[str], right: Counter[str]) -> float:
    """The words that both texts have over those that either has, each as often as it stands there,
    0 to 1; of two empty texts 1."""
    either = (left | right).total()
    return (left & right).total() / either if either else 1.0


def resemblance(left: set[str], right: set[str]) -> float:
    """Jaccard's index: the shingles that both have over those that either has, 0 to 1; of two empty
    sets 1."""
    if not left and not right:
        return 1.0
    both = len(left & right)
    return both / (len(left) + len(right) - both)
