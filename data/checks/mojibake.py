"""Texts that were written in one encoding and read in another: "cafÃ©" for "café"."""

import re

# How cp1252 and latin-1 show the bytes of UTF-8: one that begins a letter (C2 to F4), then one to
# three of 80 to BF, which latin-1 shows as control characters.
LATER = "".join(chr(b) + bytes([b]).decode("cp1252", errors="ignore") for b in range(0x80, 0xC0))
GARBLED = re.compile(f"[\u00c2-\u00f4][{re.escape(LATER)}]{{1,3}}")
LOST = "\ufffd"  # what a reader puts where it understands nothing
# What a garbled run has to mean: a letter, or a sign such as a dash or a quotation mark.
PLAUSIBLE = re.compile("[A-Za-z\u00a0-\uffff]")


def find_garbled(text: str) -> str | None:
    """The first run of characters that one reading too many has made, or None.

    What looks so is proven: the characters' bytes in cp1252 have to be UTF-8. A replacement
    character (U+FFFD) counts too.
    """
    if LOST in text:
        place = text.index(LOST)
        return text[max(0, place - 10) : place + 10]
    if text.isascii():
        return None
    for match in GARBLED.finditer(text):
        if PLAUSIBLE.match(mend(match.group())):
            return match.group()
    return None


def mend(text: str) -> str:
    """A garbled run as it was written, or nothing where its bytes are no UTF-8."""
    try:
        return b"".join(map(_byte, text)).decode("utf-8")
    except (UnicodeError, ValueError):
        return ""


def _byte(character: str) -> bytes:
    return bytes([ord(character)]) if ord(character) < 0xA0 else character.encode("cp1252")
