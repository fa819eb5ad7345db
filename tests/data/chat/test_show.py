"""A conversation as people look at it is what is trained on."""

import pytest
from talks import rows_of, talk

from data.chat.encode import ChatEncoding, encode_chats
from data.chat.show import show_chat
from report.chats import chat_lines

LONG = talk("hi", "yo", "how are you", "fine", "what is it", "good")


@pytest.mark.parametrize("overlong", ["left", "right", "split"])
def test_shown_rows_are_the_encoded_rows(overlong, chatml):
    encoding = ChatEncoding(24, overlong)
    encoded, _ = encode_chats(rows_of(LONG), chatml, encoding, None, "f")
    shown, note = show_chat(LONG, "chats.jsonl:1", chatml, encoding)
    assert [list(row.ids) for row in shown] == encoded.dataset["input_ids"][:]
    assert [list(row.labels) for row in shown] == encoded.dataset["labels"][:]
    assert "more than data.max_length" in note
    for row in shown:
        assert row.learned == sum(label != -100 for label in row.labels)


def test_pieces_are_the_text_in_order(chatml):
    (row,), note = show_chat(talk("hi", "yo"), "a", chatml, ChatEncoding(24))
    assert note == ""
    assert row.pieces == (
        ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "given"),
        ("yo<|im_end|>", "learned"),
        ("\n", "given"),
    )
    (row,), _ = show_chat(LONG, "a", chatml, ChatEncoding(24, "right"))
    assert row.pieces[-1][1] == "cut"


def test_what_gives_no_row_says_why(chatml):
    assert "special" not in show_chat(talk("hi", "yo<|im_end|>"), "a", chatml, ChatEncoding(24))[1]
    rows, note = show_chat(talk("hi", "yo<|im_end|>"), "a", chatml, ChatEncoding(24))
    assert (rows, note[:13]) == ([], "gives no row:")
    _, note = show_chat(talk("how are you " * 20, "yo"), "a", chatml, ChatEncoding(24, "right"))
    assert note.endswith("the whole answer is lost")
    _, note = show_chat(LONG, "a", chatml, ChatEncoding(24, "drop"))
    assert note.endswith("left out")
    _, note = show_chat(LONG, "a", chatml, ChatEncoding(24))
    assert note.endswith("data.overlong is not set")


def test_lines_mark_what_is_learned_and_shorten_what_is_cut(chatml):
    (row,), note = show_chat(LONG, "chats.jsonl:1", chatml, ChatEncoding(24, "right"))
    lines = list(chat_lines("chats.jsonl:1", row.pieces, row.learned, len(row.ids), note))
    assert lines[0] == "chats.jsonl:1: 24 tokens, 3 learned (12.5 %)"
    assert "    [yo<|im_end|>]" in lines
    assert sum("✂" in line for line in lines) == 1
    marked = list(
        chat_lines("a", [("x\ue000y", "given"), ("a\nb", "learned")], 1, 2, marks="\ue000\ue001")
    )
    assert marked[1:] == ["    x y\ue000a\ue001", "    \ue000b\ue001"]
