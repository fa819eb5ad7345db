"""Conversations cut between turns: whatever becomes no row is counted, by its reason."""

from itertools import product

import pytest
from talks import CHATML, rows_of, talk

from data.chat.encode import ChatEncoding, encode_chats
from data.chat.show import show_chat

LONG = talk("hi", "yo", "how are you", "fine", "what is it", "good", "thanks", "bye")
SILENT = [
    {"role": "user", "content": "how are you fine and what is it good"},
    {"role": "tool", "content": "thanks bye tell me how are you"},
]
REFUSING = (  # refuses a conversation that begins with these words
    "{% if messages[0]['content'] == 'how are you' %}{{ raise_exception('not so') }}{% endif %}"
)


def split(tokenizer, *chats, **settings):
    encoding = ChatEncoding(**({"max_length": 30, "overlong": "split"} | settings))
    encoded, counts = encode_chats(rows_of(*chats), tokenizer, encoding, None, "f")
    return [tokenizer.decode(row["input_ids"]) for row in encoded.dataset], counts


def learned(tokenizer, chat, **settings):
    encoded, _ = encode_chats(rows_of(chat), tokenizer, ChatEncoding(**settings), None, "f")
    return [
        tokenizer.decode([i for i in row["labels"] if i != -100]) for row in encoded.dataset
    ]  # fmt: skip


@pytest.mark.parametrize(("overlong", "most"), [*product(["left", "right"], [14, 30, 45])])
def test_of_a_conversation_cut_at_an_end_no_reply_but_the_last_is_learned(overlong, most, chatml):
    settings = {"max_length": most, "overlong": overlong, "learn": "last"}
    chats = [*LONG, {"role": "user", "content": "hi"}]
    if overlong == "left":
        (row,) = learned(chatml, chats, **settings)
        assert row == "bye<|im_end|>"
    else:
        with pytest.raises(ValueError, match="hold no answer"):
            learned(chatml, chats, **settings)


def test_a_split_is_no_choice_where_the_last_reply_alone_is_learned(chatml):
    with pytest.raises(ValueError, match=r"data\.overlong: 1 of 1") as caught:
        split(chatml, LONG, overlong=None, learn="last")
    assert '"drop"' in str(caught.value)
    assert '"split"' not in str(caught.value)
    with pytest.raises(ValueError, match=r'"split" with data\.learn = "last"'):
        split(chatml, LONG, learn="last")


@pytest.mark.parametrize("learn", ["replies", "all"])
@pytest.mark.parametrize("at", [0, 2, 8])
def test_a_piece_without_a_reply_is_counted(learn, at, chatml):
    texts, counts = split(chatml, [*LONG[:at], *SILENT, *LONG[at:]], learn=learn, max_length=34)
    assert counts.exchanges == {"no_reply": 1}
    assert "exchanges left out: 1 (without a reply)" in counts.lines()
    assert counts.pieces == len(texts)
    assert not any("tool" in text for text in texts)


def test_what_a_template_refuses_alone_is_counted_as_that(tokenizer_for):
    tokenizer = tokenizer_for(REFUSING + CHATML)
    texts, counts = split(tokenizer, LONG, max_length=14)
    assert [text.split("\n")[1] for text in texts] == [
        "hi<|im_end|>", "what is it<|im_end|>", "thanks<|im_end|>"
    ]  # fmt: skip
    assert counts.exchanges == {"template_refuses": 1}
    assert "exchanges left out: 1 (the template refuses them)" in counts.lines()
    _, note = show_chat(LONG, "a", tokenizer, ChatEncoding(14, "split"))
    assert note.endswith("into 3 rows; exchanges left out: 1 (the template refuses them)")


def test_reasons_are_counted_apart_and_every_exchange_once(tokenizer_for):
    tokenizer = tokenizer_for(REFUSING + CHATML)
    long = talk("hi " * 40, "yo")
    chat = [*LONG, *SILENT, *long, *LONG[4:]]
    texts, counts = split(tokenizer, chat, max_length=34)
    asked = sum(text.count("<|im_start|>user") for text in texts)
    assert counts.exchanges["too_long"] == counts.exchanges["no_reply"] == 1
    assert asked + sum(counts.exchanges.values()) == sum(m["role"] == "user" for m in chat)


def test_a_piece_whose_reply_begins_inside_a_token_is_counted(chatml, monkeypatch):
    from data.chat.render import Renderer
    from data.reading.rows import BadRow

    whole = Renderer.mask

    def mask(self, chats, addresses):  # as a template would that writes a piece unlike the whole
        rows = whole(self, chats, addresses)
        bad = BadRow("a", "inside_token", "inside a token")
        return [
            bad if len(chat) < len(LONG) and chat[0]["content"] == "hi" else row
            for chat, row in zip(chats, rows, strict=True)
        ]  # fmt: skip

    monkeypatch.setattr(Renderer, "mask", mask)
    _, counts = split(chatml, LONG)
    assert counts.exchanges.keys() == {"inside_token"}
    assert counts.bad == {}
