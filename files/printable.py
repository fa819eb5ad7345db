"""What may be printed or stored for people to look at: nothing in it steers a terminal."""

import re

# Control characters but tab and line end, marks that turn the direction of writing, separators of
# lines, characters that show nothing, and halves of surrogate pairs. The joiners stay: Indic and
# Persian words and emoji need them.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def escape_unprintable(text: str) -> str:
    """`text` with each unprintable character as Python writes it: \\x1b, \\u202e."""
    return UNPRINTABLE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def escape_in_json(text: str) -> str:
    """JSON with each unprintable character as JSON writes it (\\u202e): the same value."""
    return UNPRINTABLE.sub(lambda match: "".join(map(_json_escape, _units(match.group()))), text)


def _units(character: str) -> list[int]:
    """A character's one or two code units of UTF-16."""
    code = ord(character)
    if code < 0x10000:
        return [code]
    return [0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)]


def _json_escape(unit: int) -> str:
    return f"\\u{unit:04x}"
