"""Texts as sets of short sequences of words, and how much of two of them is the same.

Broder 1997, "On the resemblance and containment of documents".
"""

import re
from collections import Counter

from data.clean import normalise

WORD = re.compile(r"\w+")
WORDS = 3  # of a shingle
LETTERS = 5  # of a shingle where there are no blanks between words
LONG_WORD = 10  # letters a word on average: a script without blanks


def shingles(text: str) -> set[str]:
    """Every sequence of WORDS words of a text, whatever its case, tags and punctuation; of a text
    without blanks every LETTERS letters. A shorter text is one shingle, an empty one none."""
    words = WORD.findall(normalise(text))
    if _has_no_blanks(words):
        joined = " ".join(words)
        return {joined[i : i + LETTERS] for i in range(max(1, len(joined) - LETTERS + 1))}
    if not words:
        return set()
    starts = range(max(1, len(words) - WORDS + 1))
    return {" ".join(words[i : i + WORDS]) for i in starts}


def count_words(text: str) -> Counter[str]:
    """How often each word stands in a text, in whatever order; of a text without blanks each
    letter."""
    words = WORD.findall(normalise(text))
    return Counter("".join(words)) if _has_no_blanks(words) else Counter(words)


def _has_no_blanks(words: list[str]) -> bool:
    return sum(map(len, words)) > LONG_WORD * len(words)


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
