"""Rows with a prompt, or with messages, that get a reply each, and the file of them.

{"prompt": "…", "id": 7}                       → the same with reply, tokens, stopped, error
{"messages": [{"role": …, "content": …}, …]}
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from data.intake import check_text
from data.labels.reader import RowError
from data.reading.content import sniff
from data.reading.detect import detect_format
from data.reading.rows import BadRow
from data.tables import open_table
from data.write import column_types, json_text, write_rows
from files.write import replace_bytes
from job.chatting.talker import Message, Reply, Talker
from job.predicting.inputs import check_encoding

ReadTurns = Callable[[str, list[Any]], list[Message]]  # (column, turns) -> messages
OURS = ("reply", "tokens", "stopped", "left_out", "error")
CHUNK = 64  # rows whose replies are written together


@dataclass(frozen=True)
class PromptRow:
    """One row. Without `messages` where there is an `error`."""

    address: str  # "prompts.jsonl:12"
    messages: list[Message]
    values: dict[str, Any] = field(default_factory=dict)  # all that the row holds
    error: str | None = None


@dataclass(frozen=True)
class Answered:
    """A row with its reply, or with the error that stands in its place; `left_out` messages had no
    room before the model."""

    prompt: PromptRow
    reply: Reply | None
    error: str | None = None
    left_out: int = 0


@dataclass
class Tally:
    """How many rows were answered, how many of them how, and the first error."""

    rows: int = 0
    errors: int = 0
    cut: int = 0
    shortened: int = 0
    first: str = ""

    def note(self, row: Answered) -> None:
        """Count one."""
        self.rows += 1
        self.errors += row.error is not None
        self.cut += row.reply is not None and row.reply.stopped == "length"
        self.shortened += row.left_out > 0
        if row.error is not None and not self.first:
            self.first = f"{row.prompt.address}: {row.error}"

    def line(self) -> str:
        """What there was, for the end."""
        parts = [f"{self.rows:,} row{'' if self.rows == 1 else 's'}"]
        if self.cut:
            parts.append(f"{self.cut:,} replies cut at their length")
        if self.shortened:
            parts.append(f"{self.shortened:,} read without their oldest messages, for want of room")
        if self.errors:
            parts.append(f"{self.errors:,} with an error and no reply (first: {self.first})")
        return ", ".join(parts)


def read_prompts(
    path: Path, read_turns: ReadTurns, encoding: str | None = None, system: str | None = None
) -> Callable[[], Iterator[PromptRow]]:
    """The rows of a table (JSON lines, or any other that tables.py reads), which can be gone
    through again. `encoding`: that of a text file, where it is not the one its bytes tell.
    `system` is what the model is told first in each row that does not say so itself. Raises
    ValueError for a file that cannot be read as a whole."""
    check_encoding(encoding)
    if encoding is not None and sniff(path) != "text":
        raise ValueError(f"--encoding is that of a text file; {path} is none")
    fmt = detect_format(path).format
    table = open_table(path, path.name, replace(fmt, encoding=encoding or fmt.encoding))
    names = table.columns
    if names is not None and not {"prompt", "messages"} & set(names):
        raise ValueError(f"{path} has neither a column 'prompt' nor 'messages'")
    first = [] if system is None else [{"role": "system", "content": system}]

    def rows() -> Iterator[PromptRow]:
        for row in table.rows(list(names or ("messages", "prompt"))):
            if isinstance(row, BadRow):
                yield PromptRow(row.address, [], error=row.message)
                continue
            try:
                messages = messages_of(row.values, read_turns)
            except RowError as error:
                yield PromptRow(row.address, [], row.values, str(error).removeprefix(": "))
                continue
            own = messages[:1] and messages[0]["role"] == "system"
            yield PromptRow(row.address, messages if own else [*first, *messages], row.values)

    return rows


def messages_of(values: Mapping[str, Any], read_turns: ReadTurns) -> list[Message]:
    """What a row asks: its messages, or its prompt, a text of the user or messages too. Raises
    RowError where it holds neither, or both."""
    there = [name for name in ("messages", "prompt") if values.get(name) is not None]
    if len(there) != 1:
        raise RowError(
            "no_prompt", "", "has both a prompt and messages; leave one out" if there else
            f"has no prompt and no messages, only {', '.join(values) or 'nothing'}",
        )  # fmt: skip
    (name,) = there
    if isinstance(values[name], list):
        return read_turns(name, values[name])
    if name == "messages":
        raise RowError("bad_text", name, "expected a list of turns")
    return [{"role": "user", "content": check_text(name, values[name])}]


def check_single(talker: Talker, messages: Sequence[Message]) -> None:
    """Raise ValueError for a conversation where the run goes on with plain texts."""
    if talker.texts and len(messages) > 1:
        raise ValueError(
            f"this run goes on with plain texts, and the row has {len(messages)} messages; give "
            "one prompt"
        )


def answer_prompts(
    talker: Talker, rows: Iterable[PromptRow], strict: bool, tally: Tally
) -> Iterator[list[Answered]]:
    """Replies in the order of the rows, a chunk at a time. What is drawn for a row follows from the
    seed and its number in the file. Raises ValueError at the first error where `strict`."""
    iterator, begun = iter(rows), 0
    while chunk := list(islice(iterator, CHUNK)):
        errors, fitting = [row.error for row in chunk], {}
        for place, row in enumerate(chunk):
            if row.error is None:
                try:
                    check_single(talker, row.messages)
                    fitting[place] = talker.fit(row.messages)
                except ValueError as error:
                    errors[place] = str(error)
            if strict and errors[place] is not None:
                raise ValueError(f"{row.address}: {errors[place]}")
        replies = talker.answer([*fitting.values()], [begun + place for place in fitting])
        replied = dict(zip(fitting, replies, strict=True))
        done = [
            Answered(row, replied.get(place), errors[place],
                     fitting[place].left_out if place in fitting else 0)
            for place, row in enumerate(chunk)
        ]  # fmt: skip
        for answered in done:
            tally.note(answered)
        begun += len(chunk)
        yield done


class Columns:
    """How an answered row becomes a row of a file: all that it held, and ours. What it held under a
    name of ours is kept as input_…; `renamed` are those names."""

    def __init__(self) -> None:
        self.renamed: dict[str, str] = {}

    def row(self, answered: Answered) -> dict[str, Any]:
        """The cells of one row."""
        reply = answered.reply
        return {
            **self.kept(answered.prompt.values),
            "reply": None if reply is None else reply.text,
            "tokens": None if reply is None else reply.tokens,
            "stopped": None if reply is None else reply.stopped,
            "left_out": answered.left_out,
            "error": answered.error,
        }

    def kept(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a row held, under names that are none of ours."""
        for name in OURS:
            if name in values and name not in self.renamed:
                new = f"input_{name}"
                while new in values:
                    new = f"input_{new}"
                self.renamed[name] = new
        return {self.renamed.get(name, name): value for name, value in values.items()}

    def types(self, rows: Iterable[PromptRow]) -> dict[str, Any]:
        """The columns of a table of these rows, with their types."""
        ours = {"reply": "", "tokens": 1, "stopped": "", "left_out": 1, "error": ""}
        return column_types([], ([self.kept(row.values)] for row in rows)) | column_types(
            [], [[ours]]
        )


def write_replies(
    path: Path, columns: Columns, answered: Iterable[list[Answered]], types: dict[str, Any] | None
) -> None:
    """Write the rows; the file appears whole once the last one is written. `types` are the columns
    of a table, None for JSON lines."""
    rows = ([columns.row(row) for row in done] for done in answered)
    with replace_bytes(path) as file:
        write_rows(file, path.suffix.lower(), types or {}, rows)


def reply_lines(columns: Columns, answered: Iterable[list[Answered]]) -> Iterator[str]:
    """The rows as JSON lines, each as soon as its chunk is there."""
    for done in answered:
        for row in done:
            yield json_text(columns.row(row))
