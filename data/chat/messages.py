"""A record becomes the messages of a conversation, by what data.messages names:

one column      a list of turns (turns.py), that list as JSON text, or plain text
two columns     prompt, completion: texts, or lists of turns
three columns   instruction, input (may be empty), output
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.chat.turns import TEXT, Message, TurnReader, check_order
from data.columns import require_columns
from data.intake import check_text
from data.labels.reader import RowError

TURNS = re.compile(r"\s*\[\s*(?:[{\[]|\]\s*$)")  # how a list of turns begins as JSON, or is empty


@dataclass
class MessageReader:
    """Reads records with these columns, their turns by `turns`."""

    columns: tuple[str, ...]
    turns: TurnReader

    def read(self, values: Mapping[str, Any]) -> list[Message]:
        """The messages, at least one of them a reply to something; or one of role TEXT, which is
        plain text. Raises RowError where the record holds no such conversation."""
        require_columns(values, self.columns)
        if len(self.columns) == 3:
            return self._read_instruction(values)
        if len(self.columns) == 2:
            names: list[str | None] = []  # one conversation: who speaks first is the user in both
            messages = [
                *self._read_side(values, 0, "user", names),
                *self._read_side(values, 1, "assistant", names),
            ]
        else:
            value = as_turns(self.columns[0], values[self.columns[0]])
            if isinstance(value, str):
                return [{"role": TEXT, "content": check_text(self.columns[0], value)}]
            messages = self.turns.read(self.columns[0], value)
        messages = self.turns.merge(messages)
        check_order(self.columns[0], messages)
        return messages

    def _read_side(
        self, values: Mapping[str, Any], side: int, role: str, names: list[str | None]
    ) -> list[Message]:
        """Prompt or completion: a text of that role, or turns that name their own; `names` are
        those who spoke before."""
        column = self.columns[side]
        value = as_turns(column, values[column])
        if not isinstance(value, str):
            return self.turns.read(column, value, names)
        names.append(None)
        return [{"role": role, "content": check_text(column, value)}]

    def _read_instruction(self, values: Mapping[str, Any]) -> list[Message]:
        """Instruction and input are one question, a blank line between them."""
        instruction, context, output = self.columns
        question = check_text(instruction, values[instruction])
        if values[context] is not None and values[context] != "":
            question += "\n\n" + check_text(context, values[context])
        answer = check_text(output, values[output])
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def as_turns(column: str, value: Any) -> str | list[Any]:
    """The value of a column: a list of turns, read from JSON where it is written so, or text.
    Raises RowError for what is neither."""
    if isinstance(value, dict):
        lists = [items for items in value.values() if isinstance(items, list)]
        if len(lists) == len(value) and len(set(map(len, lists))) == 1:
            # a list of objects as older Hugging Face sets keep it: one list a field
            return [dict(zip(value, items, strict=True)) for items in zip(*lists, strict=True)]
        raise RowError("bad_text", column, "one object, expected a list of turns, or text")
    begins = TURNS.match(value) if isinstance(value, str) else None
    if begins is None:
        return value if isinstance(value, list) else check_text(column, value)
    try:
        turns: list[Any] = json.loads(value)
    except (ValueError, RecursionError) as error:
        printed = value[begins.end() :].lstrip().startswith("'")
        hint = "; a list as Python prints it? write it with json.dumps" * printed
        raise RowError("broken_json", column, f"broken JSON: {error}{hint}") from None
    return turns
