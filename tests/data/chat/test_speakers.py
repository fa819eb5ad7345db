"""Who is who where the data names no roles; messages and settings agree on what roles there are."""

import pytest

from configs.schema import Data
from data.chat.messages import MessageReader
from data.chat.turns import ROLES, TurnReader
from data.labels.reader import RowError

SIDES = ("prompt", "completion")


def turns_of(*names):
    return [{"role": name, "content": f"{name} speaks"} for name in names]


def roles(prompt, completion):
    reader = MessageReader(SIDES, TurnReader("alternate"))
    return [m["role"] for m in reader.read({"prompt": prompt, "completion": completion})]


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        (turns_of("A"), turns_of("B"), "ua"),
        (turns_of("A"), turns_of("B", "A", "B"), "uaua"),
        (turns_of("A", "B", "A"), turns_of("B"), "uaua"),
        (turns_of("system", "A"), turns_of("B"), "sua"),
        (turns_of("system", "A", "B", "A"), turns_of("B", "A"), "suauau"),
        (turns_of("A"), "a text", "ua"),
        ("a text", turns_of("B"), "ua"),
        ("a text", turns_of("B", "A", "B"), "uaua"),
        ("a text", "a text", "ua"),
    ],
)
def test_prompt_and_completion_are_one_conversation_of_two(prompt, completion, expected):
    assert "".join(role[0] for role in roles(prompt, completion)) == expected


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (turns_of("A", "B", "A"), turns_of("C")),
        ("a text", turns_of("B", "A", "C")),
        (turns_of("A"), turns_of("B", "C")),
    ],
)
def test_a_third_speaker_is_one_in_either_column(prompt, completion):
    with pytest.raises(RowError, match=r"completion: turn \d: a third speaker"):
        roles(prompt, completion)


def test_each_record_begins_anew():
    reader = MessageReader(SIDES, TurnReader("alternate"))
    for first, second in (("A", "B"), ("B", "A"), ("C", "D")):
        made = reader.read({"prompt": turns_of(first), "completion": turns_of(second)})
        assert [m["role"] for m in made] == ["user", "assistant"]


def test_every_role_that_the_reader_knows_can_be_set():
    table = {f"my {role}": role for role in ROLES}
    assert Data(source="x", roles=table).roles == table
    turns = turns_of(*(f"my {role}" for role in ("system", "user", "tool", "assistant")))
    made = MessageReader(("chat",), TurnReader(table)).read({"chat": turns})
    assert [m["role"] for m in made] == ["system", "user", "tool", "assistant"]


def test_an_unknown_speaker_is_told_of_every_role_that_can_be_set():
    with pytest.raises(RowError) as caught:
        MessageReader(("chat",), TurnReader()).read({"chat": turns_of("narrator")})
    assert all(role in str(caught.value) for role in ROLES)
    with pytest.raises(ValueError, match="roles"):
        Data(source="x", roles={"narrator": "teller"})
