"""Who speaks: the fields of a turn, the roles of its speakers, and what a conversation has to be.

    {"role": "user", "content": "…"}     as transformers' templates take it
    {"from": "human", "value": "…"}      ShareGPT's
    [{…}, {…}]                           several utterances of one speaker: one turn, a line each

Other names of the two fields stand in data.turn, other names of speakers in data.roles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.labels.reader import RowError
from data.reading.rows import is_encodable, list_columns

ALTERNATE = "alternate"
ROLES = ("system", "user", "assistant", "tool")
TEXT = "text"  # the role of plain text, which no chat template sees
SPEAKERS = {name: name for name in ROLES} | {
    "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant",
    "bot": "assistant", "model": "assistant", "function": "tool", "observation": "tool",
}  # fmt: skip
FIELDS = (("role", "content"), ("from", "value"))  # of a turn: who, what

Message = dict[str, str]  # role and content


@dataclass
class TurnReader:
    """Turns become messages. `roles`: speakers' names and their roles, beside those of SPEAKERS; or
    ALTERNATE: the first who speaks is the user, the other one the assistant. `fields`: the names of
    a turn's two fields, None for those of FIELDS.

    `merged` counts turns joined to the one before, `unread` fields of turns that nothing reads.
    """

    roles: Mapping[str, str] | str | None = None
    fields: tuple[str, str] | None = None
    merged: int = 0
    unread: dict[str, None] = field(default_factory=dict)

    def read(
        self, column: str, turns: Sequence[Any], names: list[str | None] | None = None
    ) -> list[Message]:
        """The messages of turns. `names`: who spoke before these turns, in the order in which they
        spoke first, None for one without a name; it grows. Raises RowError, with the number of the
        turn, for whatever is wrong with one."""
        names = [] if names is None else names
        messages: list[Message] = []
        for number, turn in enumerate(turns, start=1):
            try:
                role, content = self._read_turn(turn, names)
            except RowError as error:
                message = str(error).removeprefix(": ")
                raise RowError(
                    error.reason, column, f"turn {number}: {message}", error.value
                ) from None
            messages.append({"role": role, "content": content})
        return messages

    def merge(self, messages: Sequence[Message]) -> list[Message]:
        """Messages of the user, or of the assistant, in a row become one, a line each: templates
        want the two to take turns."""
        merged: list[Message] = []
        for message in messages:
            role = message["role"]
            if merged and role == merged[-1]["role"] and role in ("user", "assistant"):
                content = merged[-1]["content"] + "\n" + message["content"]
                merged[-1] = {"role": role, "content": content}
                self.merged += 1
            else:
                merged.append(message)
        return merged

    def _read_turn(self, turn: Any, names: list[str | None]) -> tuple[str, str]:
        """Role and content. An inner list is one turn."""
        parts = turn if isinstance(turn, list) else [turn]
        if not parts:
            raise RowError("empty_turn", "", "an empty list")
        texts, speakers = [], []
        for part in parts:
            speaker, text = self._read_part(part)
            speakers.append(speaker)
            texts += [text] if text.strip() or len(parts) == 1 else []
        if len(set(speakers)) > 1:
            who = ", ".join(dict.fromkeys(speakers))
            raise RowError("bad_turn", "", f"several speakers in one turn: {who}")
        role = self._role_of(speakers[0], names)
        content = "\n".join(texts)
        if role in ("user", "assistant") and not content.strip():
            raise RowError("empty_turn", "", f"{speakers[0]!r} says nothing")
        return role, content

    def _read_part(self, part: Any) -> tuple[str, str]:
        """Speaker and text of what one turn, or one part of it, holds."""
        if not isinstance(part, dict):
            raise RowError("bad_turn", "", f"expected an object, got {str(part)[:60]!r}", part)
        who, what = self.fields or next(
            (pair for pair in FIELDS if set(pair) <= part.keys()), FIELDS[0]
        )
        missing = [name for name in (who, what) if name not in part]
        if missing:
            expected = "" if self.fields else ", or from and value"
            raise RowError(
                "bad_turn", "", f"no field {missing[0]!r} among {list_columns(list(part))}; "
                f"expected {who} and {what}{expected}; other names stand in data.turn",
            )  # fmt: skip
        if part.get("tool_calls"):
            raise RowError("bad_turn", "", "it calls tools (tool_calls), which are not read")
        self.unread |= dict.fromkeys(name for name in part if name not in (who, what))
        speaker = part[who]
        if not isinstance(speaker, str | int) or isinstance(speaker, bool):
            raise RowError("bad_turn", "", f"{who} is {speaker!r}, expected a name", speaker)
        return str(speaker), _content(what, part[what])

    def _role_of(self, speaker: str, names: list[str | None]) -> str:
        """The role of a speaker; `names` are those who spoke before."""
        if self.roles != ALTERNATE:
            table = self.roles if isinstance(self.roles, Mapping) else {}
            role = table.get(speaker) or SPEAKERS.get(speaker)
            if role is None:
                raise RowError(
                    "unknown_role", "", f"nothing says what {speaker!r} is: system, user, "
                    f'assistant or tool; as in data.roles = {{ "{speaker}" = "user" }}', speaker,
                )  # fmt: skip
            return role
        if speaker == "system":
            return speaker
        if speaker not in names:
            if len(names) == 2 and None in names:
                names[names.index(None)] = speaker  # a name at last
            else:
                names.append(speaker)
        if len(names) > 2:
            raise RowError(
                "many_speakers", "", "a third speaker, and data.roles = "
                '"alternate" needs two', speaker,
            )  # fmt: skip
        return "user" if speaker == names[0] else "assistant"


def _content(name: str, value: Any) -> str:
    """What is said: text, or the text of parts as {"type": "text", "text": …}."""
    if isinstance(value, list) and all(isinstance(p, dict) and "text" in p for p in value):
        for text in (part["text"] for part in value):
            if not isinstance(text, str):
                shown = str(text)[:60]
                message = f"{name} has a part whose text is {shown!r}, expected text"
                raise RowError("bad_text", "", message, shown)
        value = "\n".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise RowError(
            "bad_text", "", f"{name} is {str(value)[:60]!r}, expected text", str(value)[:60]
        )
    if not is_encodable(value):
        raise RowError("bad_encoding", "", f"{name} holds a lone surrogate, which is no Unicode")
    return value


def check_order(column: str, messages: Sequence[Message]) -> None:
    """Raise RowError for a conversation that teaches nothing, or whose order no template means."""
    roles = [message["role"] for message in messages]
    if not roles:
        raise RowError("empty_chat", column, "a conversation without a turn")
    if "system" in roles[1:]:
        number = roles.index("system", 1) + 1
        raise RowError("late_system", column, f"message {number} is the system's, and not first")
    if roles[0] == "assistant":
        raise RowError("no_prompt", column, "the assistant speaks first, and nothing asks it")
    if "assistant" not in roles:
        raise RowError("no_reply", column, "the assistant never answers")
