"""Cleaning of texts, each step optional: the same function serves training and prediction."""

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# A tag has a name right after its bracket, so "a < b" and "<3" stay, and so does <http://...>.
TAG = re.compile(r"</?[a-z][a-z0-9-]*(?:\s[^<>]*)?/?>|<!--.*?-->|<!doctype[^<>]*>", re.S | re.I)
ENTITY = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")
# C0 and C1 controls, except those that count as white space.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


@dataclass(frozen=True)
class CleanArgs:
    """Which steps run: html (tags become a space, entities their character), control (control
    characters become a space), unicode (normal form), spaces (runs of white space become one space,
    none at the ends).

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
        text = TAG.sub(" ", text)
    if "&" in text:
        text = ENTITY.sub(lambda match: html.unescape(match.group()), text)
    return text


def remove_control(text: str) -> str:
    """A control character becomes a space (old dashes end up as one: "long\\x96winded"); the white
    space among them (tab, line ends) is left to `spaces`."""
    return CONTROL.sub(" ", text)


def collapse_spaces(text: str) -> str:
    """Every run of white space becomes one space; none at the ends."""
    return " ".join(text.split())


def cleaning_steps(args: CleanArgs) -> list[tuple[str, Callable[[str], str]]]:
    """The steps that run, in their order: entities may hold controls, both may leave spaces."""
    steps: list[tuple[str, Callable[[str], str]]] = []
    if args.html:
        steps.append(("html", remove_html))
    if args.control:
        steps.append(("control", remove_control))
    if args.unicode == "NFC":
        steps.append(("unicode", lambda text: unicodedata.normalize("NFC", text)))
    elif args.unicode == "NFKC":
        steps.append(("unicode", lambda text: unicodedata.normalize("NFKC", text)))
    elif args.unicode != "none":
        raise ValueError(
            f"data.clean.unicode: got {args.unicode!r}, expected 'NFC', 'NFKC' or 'none'"
        )
    if args.spaces:
        steps.append(("spaces", collapse_spaces))
    return steps


def clean_text(text: str, args: CleanArgs) -> str:
    """One text through all steps."""
    for _, step in cleaning_steps(args):
        text = step(text)
    return text


def normalise(text: str) -> str:
    """The form in which two texts count as the same: no tags, no case, single spaces."""
    return collapse_spaces(TAG.sub(" ", text)).casefold()
