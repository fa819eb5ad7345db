"""Numbers as people write them in a table: 1,234.50  1.234,50  1 234,5  $1,000  45 %  (3.2)

How a comma or a dot is meant shows in a whole column, not in a cell: a style is chosen from all.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

# Digits with marks between them; a currency before or behind, a per cent sign behind.
CURRENCY = (
    r"(?:[A-Z]{0,2}[$€£¥₹₽₩₺]|USD|EUR|GBP|JPY|CNY|INR|CHF|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL"
    r"|KRW|RUB|TRY|MXN|ZAR|Rs\.?|kr\.?|zł)"
)
NUMBER = re.compile(
    rf"(?P<open>\()?(?P<sign>[+\-−–])?\s?(?:{CURRENCY}\s?)?(?P<minus>[-−–])?"
    r"(?P<core>\d[\d.,' ]{0,30}|\.\d{1,30})(?P<exponent>[eE][+-]?\d{1,3})?"
    rf"\s?(?:{CURRENCY}|%)?(?(open)\))",
    re.ASCII,
)
PLAIN = re.compile(r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,3})?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
GROUPED = {mark: re.compile(rf"[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+") for mark in ",.' "}


@dataclass(frozen=True)
class NumberStyle:
    """Which marks group digits and which one begins the decimals."""

    decimal: str = "."
    groups: str = ",' "

    def parse(self, text: str) -> float | None:
        """The number that a text means, None where it means none in this style."""
        match = NUMBER.fullmatch(_plain_spaces(text))
        if match is None:
            return None
        core = match["core"].rstrip(" ")
        whole, _, decimals = core.partition(self.decimal)
        marks = set(whole) - set("0123456789")
        if marks and (
            len(marks) > 1
            or not marks <= set(self.groups)
            or not GROUPED[marks.pop()].fullmatch(whole)
        ):
            return None
        digits = "".join(c for c in whole if c.isdigit())
        if decimals and not decimals.isdigit():
            return None
        value = float(f"{digits or '0'}.{decimals or '0'}{match['exponent'] or ''}")
        negative = match["open"] or match["minus"] or match["sign"] in ("-", "−", "–")
        return (-value if negative else value) if math.isfinite(value) else None


ENGLISH, GERMAN = NumberStyle(), NumberStyle(",", ".' ")


def _plain_spaces(text: str) -> str:
    return text.translate({0xA0: " ", 0x202F: " ", 0x2009: " ", 0x2019: "'"}).strip()


def is_number(text: str) -> bool:
    """Whether a text means a number in some style."""
    return ENGLISH.parse(text) is not None or GERMAN.parse(text) is not None


def is_plain(text: str) -> bool:
    """Whether a text is a number as programs write it."""
    return PLAIN.fullmatch(text) is not None


def choose_style(texts: Iterable[str]) -> NumberStyle:
    """The style in which all texts are numbers; where both would do ("1,234"), the one that more
    of them can only be meant in, else English.

    Raises ValueError showing two texts that are not of one style.
    """
    only: dict[NumberStyle, str] = {}
    for text in texts:
        styles = [style for style in (ENGLISH, GERMAN) if style.parse(text) is not None]
        if len(styles) == 1:
            only.setdefault(styles[0], text)
    if len(only) == 2:
        raise ValueError(
            f"{only[ENGLISH]!r} and {only[GERMAN]!r} are numbers of two ways of writing: in one "
            "the dot, in the other the comma begins the decimals; write all of them in one way"
        )
    return next(iter(only), ENGLISH)
