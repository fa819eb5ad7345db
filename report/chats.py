"""Conversations as they are trained on, for people: what is learned stands between marks."""

from collections.abc import Iterator, Sequence

from report.format import COLUMNS, clean_line, format_count, format_share, shorten, wrap

Piece = tuple[str, str]  # text; "learned", "given" or "cut"
MOST_CUT = 60  # characters shown of what is cut off, at each of its ends
INDENT = "    "


def chat_lines(
    address: str,
    pieces: Sequence[Piece],
    learned: int,
    tokens: int,
    note: str = "",
    marks: str = "[]",
) -> Iterator[str]:
    """A row as lines: its address and counts, then its text, what is learned between the two
    `marks` (each line of it, so that a terminal may style them), what is cut off in short.

    `tokens` of the row, `learned` of them; `note` says what is lost of the conversation.
    """  # fmt: skip
    share = format_share(learned, tokens)
    head = f"{clean_line(address)}: {format_count(tokens)} tokens, {format_count(learned)} learned"
    yield shorten(f"{head} ({share})", COLUMNS)
    if note:
        yield from (INDENT + line for line in wrap(clean_line(note), COLUMNS - len(INDENT)))
    line = ""
    for text, state in pieces:
        for sign in marks if marks != "[]" else "":
            text = text.replace(sign, " ")  # else a text could mark itself
        if state == "cut":
            text = f"✂ {_shorten_middle(text)} ✂"
        for i, part in enumerate(text.split("\n")):
            if i:
                yield INDENT + line
                line = ""
            line += marks[0] + part + marks[1] if state == "learned" and part else part
    if line:
        yield INDENT + line


def _shorten_middle(text: str) -> str:
    """A text on one line, its ends alone where it is long."""
    text = clean_line(text)
    if len(text) <= 2 * MOST_CUT:
        return text
    return f"{text[:MOST_CUT].rstrip()} … {text[-MOST_CUT:].lstrip()}"
