"""Prompts are cleaned as the rows were that the model learned from."""

import json

import pytest
from chats import ask

from data.cache import read_arrow
from data.chat.intake import ChatClean, ChatIntake, message_steps
from data.chat.messages import MessageReader
from data.chat.templates import choose_template
from data.chat.turns import TurnReader
from data.tables import open_table
from job.chatting.load import prompt_encoder

DIRTY = [
    "  how are you \n", "cafe\u0301 \u212b", "a\x00b\x1b[2Jc", "\u2000fine\u2003", "line\n\n  line",
    "<b>bold</b> &amp;", "\ufb01lm \x96 ok", "plain",
]  # fmt: skip
WAYS = {
    "usual": ChatClean(),
    "nothing": ChatClean(control=False, unicode="none", ends=False),
    "compatible": ChatClean(unicode="NFKC"),
    "ends stay": ChatClean(ends=False),
}


@pytest.fixture
def encoder(chat_tokenizer):
    """encoder(clean, texts) -> the tokens of messages."""

    def make(clean, texts=False):
        template = choose_template(chat_tokenizer, None)
        return prompt_encoder(chat_tokenizer, template, texts, message_steps(clean, texts))

    return make


@pytest.mark.parametrize("clean", WAYS.values(), ids=WAYS)
def test_a_prompt_has_the_tokens_of_the_same_row(encoder, chat_tokenizer, tmp_path, clean):
    path, rows = tmp_path / "rows.jsonl", tmp_path / "rows.arrow"
    spoken = [[*ask(text), {"role": "assistant", "content": text}] for text in DIRTY]
    lines = [json.dumps({"messages": messages}) for messages in spoken]
    path.write_text("\n".join(lines), encoding="utf-8")
    intake = ChatIntake(MessageReader(("messages",), TurnReader()), clean)
    intake.read_split("train", [open_table(path, path.name)], rows)
    learned = read_arrow(rows)["messages"]
    assert len(learned) == len(DIRTY)
    bare = prompt_encoder(chat_tokenizer, choose_template(chat_tokenizer, None), False)
    for text, messages in zip(DIRTY, learned, strict=True):
        assert encoder(clean)(ask(text)) == bare(messages[:1])


def test_plain_texts_keep_their_ends(encoder, chat_tokenizer):
    encode = encoder(ChatClean(), texts=True)
    assert encode(ask(" how\x00e\u0301 ")) == chat_tokenizer(" how \xe9 ")["input_ids"]


@pytest.mark.parametrize("text", ["\x00", " \x07\x1b ", "\u2003"])
def test_a_message_of_which_nothing_is_left_is_refused(encoder, text):
    with pytest.raises(ValueError, match="cleaning leaves nothing of a message"):
        encoder(ChatClean())(ask(text))
