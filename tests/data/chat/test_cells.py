"""What a cell of text is: a conversation written as JSON, or plain text; never both in a source."""

import json

import datasets
import pytest

from data.chat.prepare import ChatArgs, load_chats
from data.refused import RefusedError

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
WHOLE = {"validation": 0, "test": 0}
WRITTEN = {
    "tight": json.dumps(CHAT, separators=(",", ":")),
    "indented": json.dumps(CHAT, indent=2),
    "a blank inside": "[ " + json.dumps(CHAT)[1:],
    "line ends around": "\n\r\n\t[\r\n" + json.dumps(CHAT)[1:-1] + "\n]\n",
    "an inner list": json.dumps([[CHAT[0]], [CHAT[1]]], indent=1),
}
TEXTS = ["[1] A note.", "[sic] is written so", "[ ] to do", "[] is an empty list", "[", "see [{x}]"]


def load(tmp_path, rows, **changes):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return load_chats(ChatArgs(str(path), **(WHOLE | changes)), tmp_path / "cache")


def read(tmp_path, value, **changes):
    chats = load(tmp_path, [{"messages": value}], **changes)
    return chats.splits["train"][0]["messages"]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_conversation_written_as_json_is_one_however_it_is_laid_out(name, tmp_path):
    assert read(tmp_path, WRITTEN[name]) == CHAT
    datasets.Dataset.from_list([{"messages": WRITTEN[name]}]).to_csv(tmp_path / "rows.csv")
    args = ChatArgs(str(tmp_path / "rows.csv"), **WHOLE)
    assert load_chats(args, tmp_path / "cache").splits["train"][0]["messages"] == CHAT


@pytest.mark.parametrize("cell", ["[]", "[ ]", " [\n] ", "[ []]"])
def test_an_empty_list_is_no_text(cell, tmp_path):
    with pytest.raises(RefusedError, match=r"without a turn|an empty list"):
        read(tmp_path, cell)


@pytest.mark.parametrize("cell", ["[\n  {'role': 'user'}]", "[ {'role': 'user'}]"])
def test_a_list_as_python_prints_it_is_told_however_it_is_laid_out(cell, tmp_path):
    with pytest.raises(RefusedError, match=r"write it with json.dumps"):
        read(tmp_path, cell)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_only_begins_with_a_bracket_is_text_and_counted(text, tmp_path):
    chats = load(tmp_path, [{"messages": text}, {"messages": text + " too"}])
    assert [row["messages"][0]["content"] for row in chats.splits["train"]] == [text, text + " too"]
    assert "plain text, all of it learned: 2 rows" in chats.report.lines()


def test_conversations_have_no_line_about_plain_text(tmp_path):
    lines = load(tmp_path, [{"messages": CHAT}]).report.lines()
    assert not any("plain text" in line for line in lines)


MIXED = [{"messages": CHAT}, {"messages": "once upon a time"}, {"messages": "and then"}]


@pytest.mark.parametrize("rows", [MIXED, MIXED[::-1]])
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_plain_texts_among_conversations_are_refused_with_their_places(rows, on_bad_row, tmp_path):
    with pytest.raises(ValueError, match="2 of the rows are plain text") as caught:
        load(tmp_path, rows, on_bad_row=on_bad_row)
    first = 1 + next(i for i, row in enumerate(rows) if isinstance(row["messages"], str))
    assert f"(the first is rows.jsonl:{first})" in str(caught.value)


def test_a_mix_in_two_files_or_splits_is_refused_too(tmp_path):
    for name, row in (("a", MIXED[0]), ("b", MIXED[1])):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    for source in (files, {"train": files[0], "test": files[1]}):
        with pytest.raises(ValueError, match=r"plain text \(the first is b.jsonl:1\)"):
            load_chats(ChatArgs(source, **WHOLE), tmp_path / "cache")


def test_rows_that_are_left_out_are_no_mix(tmp_path):
    rows = [row | {"kind": type(row["messages"]).__name__} for row in MIXED]
    assert len(load(tmp_path, rows, filter='kind == "list"').splits["train"]) == 1
    assert len(load(tmp_path, rows, filter='kind == "str"').splits["train"]) == 2
    named = tmp_path / "named.jsonl"
    named.write_text(json.dumps({"rows": ["rows.jsonl:2", "rows.jsonl:3"]}), encoding="utf-8")
    assert len(load(tmp_path, rows, drop_rows=str(named)).splits["train"]) == 1


@pytest.mark.parametrize("part", [None, 5, True, ["a"], {"value": "a"}])
def test_a_part_whose_text_is_no_text_is_a_bad_row(part, tmp_path):
    parts = [{"type": "text", "text": "hi"}, {"type": "text", "text": part}]
    user = {"role": "user", "content": parts}
    with pytest.raises(RefusedError, match=r"turn 1: content has a part whose text is"):
        read(tmp_path, json.dumps([user, CHAT[1]]))


def test_parts_that_are_texts_are_a_line_each(tmp_path):
    user = {"role": "user", "content": [{"type": "text", "text": "hi"}, {"text": "you"}]}
    assert read(tmp_path, json.dumps([user, CHAT[1]]))[0]["content"] == "hi\nyou"
