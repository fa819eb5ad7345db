"""Texts that were written in one encoding and read in another: "cafÃ©" for "café"."""

import re
import unicodedata

# How cp1252 and latin-1 show the bytes of UTF-8: one that begins a letter (C2 to F4), then one to
# three of 80 to BF, which latin-1 shows as control characters.
LATER = "".join(chr(b) + bytes([b]).decode("cp1252", errors="ignore") for b in range(0x80, 0xC0))
GARBLED = re.compile(
    "[\u00c2-\u00df][{0}]|[\u00e0-\u00ef][{0}]{{2}}|[\u00f0-\u00f4][{0}]{{3}}".format(
        re.escape(LATER)
    )
)
LOST = "\ufffd"  # what a reader puts where it understands nothing
# What stands behind a letter in correct texts too, "« aimé » … LIBERTÉ»", so that a run of a letter
# and these may be what was written; those of JOINED may have another word behind them as well.
JOINED = set("\u00a0\u00ad‘’–—")
BEHIND = JOINED | set("«»‹›“”„‚…™®°¹²³†‡•·")


def find_garbled(text: str) -> str | None:
    """The first run of characters that one reading too many has made, or None.

    What looks so is proven: the characters' bytes in cp1252 have to be UTF-8 of a letter or a sign,
    and a letter with what may follow it in a correct text counts only where it stands as no correct
    text has it. A replacement character (U+FFFD) counts too.
    """
    if LOST in text:
        place = text.index(LOST)
        return text[max(0, place - 10) : place + 10]
    if text.isascii():
        return None
    for match in GARBLED.finditer(text):
        run = match.group()
        if _is_meant(mend(run)) and (not BEHIND.issuperset(run[1:]) or _is_misplaced(text, match)):
            return run
    return None


def mend(text: str) -> str:
    """A garbled run as it was written, or nothing where its bytes are no UTF-8."""
    try:
        return b"".join(map(_byte, text)).decode("utf-8")
    except (UnicodeError, ValueError):
        return ""


def _byte(character: str) -> bytes:
    return bytes([ord(character)]) if ord(character) < 0xA0 else character.encode("cp1252")


def _is_meant(mended: str) -> bool:
    """Whether a person writes such a character: a letter or a sign, but neither phonetic ones nor
    the rare scripts (Syriac, Thaana, NKo, Samaritan) that "Ü«" or "ß…" would mean."""
    if len(mended) != 1 or "\u0250" <= mended <= "\u036f" or "\u0700" <= mended <= "\u08ff":
        return False
    return unicodedata.category(mended)[0] in "LPS" or mended in "\u00a0\u00ad²³¹¼½¾\ufeff"


def _is_misplaced(text: str, match: re.Match[str]) -> bool:
    """Whether a run stands where no letter with a quotation mark, dash or blank behind it does: a
    capital after a small letter ("sÄ…"), Â or Ã as a word of its own, or in a word ("nguyá»…n")."""
    run = match.group()
    before = text[match.start() - 1 : match.start()] if match.start() else ""
    if before.isupper() and run[0].isupper():
        return False  # LIBERTÉ», TÄÄLLÄ…
    if run[0] in "ÂÃ" or (before.islower() and run[0].isupper()):
        return True
    return text[match.end() : match.end() + 1].isalpha() and JOINED.isdisjoint(run)
