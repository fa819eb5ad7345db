"""Markdown from plain values: whatever comes from data is escaped."""

import re
from collections.abc import Sequence

from report.format import clean_line


def escape_markdown(text: str) -> str:
    """`text` on one line, so that Markdown shows it letter by letter, inside a table too."""
    text = clean_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]|~#$])", r"\\\1", text)
    text = re.sub(r"^([-+=])|^(\d+)(?=[.)])", r"\2\\\1", text)  # would begin a list or a rule
    return re.sub(r"(?i)(://|(?<=www)\.)", r"\\\1", text)  # a bare address would become a link


def code_block(text: str, language: str) -> list[str]:
    """A code block whose fence is longer than any run of backticks inside it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return [marks + language, text.strip("\n"), marks]


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0
) -> list[str]:
    """A Markdown table; the last `numbers` columns are set to the right. Cells come escaped."""
    marks = [":--"] * (len(header) - numbers) + ["--:"] * numbers
    return ["| " + " | ".join(cells) + " |" for cells in (header, marks, *rows)]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """A headed section, or nothing where it has no lines."""
    return [f"## {title}", "", *lines, ""] if lines else []


def code_span(text: str) -> str:
    """`text` as a code span; escaped instead where it holds what would end the span or a cell."""
    return (
        escape_markdown(text) if not text or re.search(r"[`|]", text) else f"`{clean_line(text)}`"
    )


def bullets(lines: Sequence[str]) -> list[str]:
    return [f"- {escape_markdown(line)}" for line in lines]
