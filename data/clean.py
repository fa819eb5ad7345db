"""Cleaning of texts, each step optional: the same function serves training and prediction.

Every step takes time in proportion to the text, whatever stands in it.
"""

import html
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html.entities import html5
from itertools import groupby
from typing import Literal

from data.markup import remove_tags

Step = tuple[str, Callable[[str], str]]

# No entity is longer, and Python refuses to read a number of more than 4,300 digits.
ENTITY = re.compile(r"&(?:#[0-9]{1,30}|#[xX][0-9a-fA-F]{1,30}|[a-zA-Z][a-zA-Z0-9]{1,31});")
# C0 and C1 controls, except those that count as white space.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
# What may be a long run of combining marks (Unicode's stream-safe text has at most 30 together).
# None of them is a word character, but the two Katakana marks of half width.
MARKS = re.compile("[\\W\uff9e\uff9f]{31,}")

TRACE_BITS = 16  # of a trace, a step


@dataclass(frozen=True)
class CleanArgs:
    """Which steps run, in this order: html (real HTML elements, comments and the like become a
    space, the contents of script, style and svg with them; entities become their character;
    <user>, <3 and a < b stay), control (control characters become a space), unicode (normal form),
    spaces (runs of white space become one space, none at the ends).

    `min_chars` and `duplicates` drop rows, and so concern tables only: a text shorter than that
    after cleaning, and a text that stood there before.
    """

    html: bool = True
    control: bool = True
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    spaces: bool = True
    min_chars: int = 1
    duplicates: bool = True


def remove_html(text: str) -> str:
    """Tags become a space; then entities become their characters (so `&lt;b&gt;` stays, as <b>)."""
    if "<" in text:
        text = remove_tags(text)
    if "&" in text:
        text = ENTITY.sub(_read_entity, text)
    return text


def _read_entity(match: re.Match[str]) -> str:
    entity = match.group()
    return html.unescape(entity) if entity[1] == "#" else html5.get(entity[1:], entity)


def remove_control(text: str) -> str:
    """A control character becomes a space (old dashes end up as one: "long\\x96winded"); the white
    space among them (tab, line ends) is left to `spaces`."""
    return CONTROL.sub(" ", text)


def normalise_unicode(form: Literal["NFC", "NFKC"], text: str) -> str:
    """The text in that normal form.

    Python orders the marks on a letter by insertion: 50,000 of them would take seconds. So long
    runs are put into that same order beforehand.
    """
    if text.isascii() or unicodedata.is_normalized(form, text):
        return text
    apart: Literal["NFD", "NFKD"] = "NFD" if form == "NFC" else "NFKD"

    def order(match: re.Match[str]) -> str:
        characters = "".join(unicodedata.normalize(apart, one) for one in match.group())
        runs = groupby(characters, key=lambda one: unicodedata.combining(one) > 0)
        ordered = (sorted(r, key=unicodedata.combining) if marks else r for marks, r in runs)
        return "".join(one for run in ordered for one in run)

    return unicodedata.normalize(form, MARKS.sub(order, text))


def collapse_spaces(text: str) -> str:
    """Every run of white space becomes one space; none at the ends."""
    return " ".join(text.split())


def cleaning_steps(args: CleanArgs) -> list[Step]:
    """The steps that run, in their order: entities may hold controls, both may leave spaces."""
    steps: list[Step] = []
    if args.html:
        steps.append(("html", remove_html))
    if args.control:
        steps.append(("control", remove_control))
    if args.unicode in ("NFC", "NFKC"):
        steps.append(("unicode", partial(normalise_unicode, args.unicode)))
    elif args.unicode != "none":
        raise ValueError(
            f"data.clean.unicode: got {args.unicode!r}, expected 'NFC', 'NFKC' or 'none'"
        )
    if args.spaces:
        steps.append(("spaces", collapse_spaces))
    return steps


def clean_text(text: str, args: CleanArgs) -> str:
    """One text through all steps."""
    return trace_steps((text,), cleaning_steps(args))[0][0]


def trace_steps(texts: tuple[str, ...], steps: Sequence[Step]) -> tuple[tuple[str, ...], int]:
    """The texts of a row through all steps, and a trace of what each step made of them.

    The trace holds TRACE_BITS a step, the first step's lowest: 0 where it changed nothing, else
    a checksum of what it left. `tell_step` reads two of them.
    """
    trace = 0
    if all(map(_is_plain, texts)):
        return texts, trace
    for i, (_, step) in enumerate(steps):
        cleaned = tuple([step(text) for text in texts])
        if cleaned != texts:
            texts = cleaned
            left = zlib.crc32("\0".join(texts).encode("utf-8", errors="surrogatepass"))
            trace |= (left % (2**TRACE_BITS - 1) + 1) << i * TRACE_BITS
    return texts, trace


def changed_steps(trace: int, steps: Sequence[Step]) -> list[str]:
    """The names of the steps that changed a row."""
    return [name for (name, _), left in zip(steps, _split_trace(trace, steps), strict=True) if left]


def tell_step(left: int, right: int, steps: Sequence[Step]) -> str:
    """The name of the step that made two rows equal, by their traces.

    It is the first that changed only one of them: what it removes stood there alone. Where each
    changed both, it is the one after which nothing differs. Without that step they stay apart.
    """
    pairs = list(zip(_split_trace(left, steps), _split_trace(right, steps), strict=True))
    equal_since = 0
    for i, (one, other) in enumerate(pairs):
        if bool(one) != bool(other):
            return steps[i][0]
        if one != other:
            equal_since = i + 1
    changed = [i for i, (one, _) in enumerate(pairs) if one and i >= equal_since]
    return steps[changed[0] if changed else 0][0]


def _split_trace(trace: int, steps: Sequence[Step]) -> list[int]:
    """A trace's part for each step."""
    return [trace >> i * TRACE_BITS & (1 << TRACE_BITS) - 1 for i in range(len(steps))]


def _is_plain(text: str) -> bool:
    """Whether no step can change the text: printable ASCII, no markup, no surplus space. This is
    quicker than the steps, and most texts are so."""
    return (
        text.isascii()
        and "<" not in text
        and "&" not in text
        and "  " not in text
        and text[:1] != " "
        and text[-1:] != " "
        and text.isprintable()
    )


def normalise(text: str) -> str:
    """The form in which two texts count as the same: no tags, no case, single spaces."""
    if not _is_plain(text):
        text = collapse_spaces(remove_tags(text) if "<" in text else text)
    return text.casefold()
