"""Numbers and text made fit to print: the one place that knows units, column widths and wrapping.

Widths are terminal columns, not characters: a CJK character takes two, a combining accent none.
"""

import unicodedata
from collections.abc import Sequence

COLUMNS = 100  # no line of a report is wider
WARNING = "WARNING: "  # begins a line that belongs on top
NONE = "-"  # printed where there is no figure

_KEPT_FORMAT_CHARACTERS = "\u200c\u200d"  # the joiners that Indic and Persian words and emoji need


def format_count(number: int) -> str:
    """12345 -> "12,345"."""
    return f"{number:,}"


def split_warnings(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines that warn, without the word that says so, and all others."""
    loud = [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]
    return loud, [line for line in lines if not line.startswith(WARNING)]


def format_share(part: float, whole: float) -> str:
    """`part` of `whole` as a percentage with one decimal; "-" where the whole is zero."""
    return f"{100 * part / whole:.1f} %" if whole else NONE


def format_p(p: float) -> str:
    """A p to two digits; what is less than one in ten thousand says so."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def format_bytes(size: int | None) -> str:
    """Bytes in binary units with three digits or so: 1536 -> "1.5 KiB"; None -> "-"."""
    if size is None:
        return NONE
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:  # not 1024: "1,010 MiB" would be read as a typing error
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def format_seconds(seconds: float | None) -> str:
    """Seconds in the two largest units that matter: 252.3 -> "4 min 12 s"; None -> "-"."""
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_number(value: float | None) -> str:
    """Four significant digits without trailing zeros, whole numbers whole: 0.91234 -> "0.9123",
    183204.4 -> "183,204"; None -> "-"."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if 9999.5 <= abs(value) < 1e15 else f"{value:.4g}"


def join_names(names: Sequence[str], limit: int = 12) -> str:
    """Names between commas; those past `limit` are counted instead of listed."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {format_count(rest)} more" if rest > 0 else "")


def clean_line(text: str) -> str:
    """`text` as one line that is safe to print.

    White space and control characters, with which a text could steer the terminal, become single
    spaces; invisible direction marks are dropped; half a surrogate pair, which cannot be encoded,
    shows as U+FFFD.
    """
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc":
            kept.append(" ")
        elif category == "Cs":
            kept.append("\ufffd")
        elif category != "Cf" or character in _KEPT_FORMAT_CHARACTERS:
            kept.append(character)
    return " ".join("".join(kept).split())


def measure_width(text: str) -> int:
    """Terminal columns that one printed line takes."""
    columns = 0
    for character in text:
        if unicodedata.category(character) in ("Mn", "Me", "Cf"):
            continue  # drawn over the character before it
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def split_at(text: str, columns: int) -> tuple[str, str]:
    """`text` in two: the longest beginning that fits `columns`, and the rest."""
    used = 0
    for index, character in enumerate(text):
        used += measure_width(character)
        if used > columns:
            return text[:index], text[index:]
    return text, ""


def shorten(text: str, columns: int) -> str:
    """`text` if it fits `columns`, else its beginning and an ellipsis."""
    if measure_width(text) <= columns:
        return text
    return split_at(text, columns - 1)[0].rstrip() + "…"


def pad(text: str, columns: int, right: bool = False) -> str:
    """`text` filled with spaces to `columns`; `right` moves it to the right edge."""
    spaces = " " * max(0, columns - measure_width(text))
    return spaces + text if right else text + spaces


def wrap(text: str, columns: int) -> list[str]:
    """Lines of at most `columns`, broken at spaces; a longer word is cut."""
    lines, line = [], ""
    for word in text.split():
        if line and measure_width(line) + 1 + measure_width(word) <= columns:
            line += " " + word
            continue
        if line:
            lines.append(line)
        *starts, line = _cut(word, columns)
        lines += starts
    return [*lines, line] if line or not lines else lines


def _cut(word: str, columns: int) -> list[str]:
    """A word in pieces of at most `columns`, in one pass; a wider character stands alone."""
    pieces, start, used = [], 0, 0
    for index, character in enumerate(word):
        width = measure_width(character)
        if used + width > columns and index > start:
            pieces.append(word[start:index])
            start, used = index, 0
        used += width
    return [*pieces, word[start:]]


def align_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows of cells as aligned lines, two spaces between columns.

    `right` holds the indices of the columns that are set to the right, as numbers are.
    """
    widths = [max(map(measure_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [pad(cell, widths[i], right=i in right) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return lines
