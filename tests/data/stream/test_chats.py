"""data/stream/chats.py: conversations that stream are what they would be if all were read first."""

from itertools import chain

import pytest

from data.chat.batches import collate_chats
from data.chat.encode import ChatEncoding, encode_chats
from data.chat.intake import ChatClean
from data.chat.prepare import ChatArgs, load_chats
from data.loaders import Padding
from data.refused import RefusedError
from data.stream.chats import load_streamed_chats, streamed_chats
from data.stream.cut import StreamArgs
from tests.conftest import make_chats, write_rows

PLAIN = ChatClean(duplicates=False)
PADDING = Padding(0)


@pytest.fixture
def load(tmp_path):
    """load(rows, buffer=…, **arguments) -> Chats of these rows, with a cache of the test's own."""

    def load(rows, buffer=20, **named):
        named = {"clean": PLAIN, "on_overlap": "drop", "validation": 0, "test": 0, **named}
        args = ChatArgs(write_rows(tmp_path / "chats.jsonl", rows), **named)
        return load_streamed_chats(args, StreamArgs(buffer, 5), tmp_path / "cache")

    return load


def rows_of(chats):
    return [{"messages": chat} for chat in chats]


def batches_of(chats, tokenizer, encoding, size=4, start=0):
    numbers = range(start, -(-chats.stream.rows // size))
    return list(streamed_chats(chats.stream, 0, numbers, size, tokenizer, encoding, PADDING))


@pytest.mark.parametrize("overlong", ["left", "right"])
def test_batches_are_those_of_the_encoded_rows(tmp_path, load, chat_tokenizer, overlong):
    encoding = ChatEncoding(24, overlong)
    chats = load(rows_of(make_chats(50)), validation=6)
    args = ChatArgs(str(tmp_path / "chats.jsonl"), clean=PLAIN, validation=0, test=0)
    whole = load_chats(args, tmp_path / "cache").splits["train"]
    encoded, _ = encode_chats(whole, chat_tokenizer, encoding, None, "x")
    told = {row["row"]: row for row in encoded.dataset}
    made = batches_of(chats, chat_tokenizer, encoding)
    assert sum(len(batch["rows"]) for batch in made) == chats.stream.rows == 44
    for batch in made:
        other = collate_chats([told[row] for row in batch["rows"].tolist()], PADDING)
        for name in ("input_ids", "attention_mask"):
            assert batch["inputs"][name].tolist() == other["inputs"][name].tolist()
        assert batch["labels"].tolist() == other["labels"].tolist()
    rest = batches_of(chats, chat_tokenizer, encoding, start=5)
    assert [batch["rows"].tolist() for batch in rest] == [
        batch["rows"].tolist() for batch in made[5:]
    ]


def test_what_is_too_long_is_dropped_and_has_a_stand_in(load, chat_tokenizer):
    encoding = ChatEncoding(60, "drop")
    chats = load(rows_of(make_chats(50)), buffer=50)
    made = batches_of(chats, chat_tokenizer, encoding)
    assert [len(batch["rows"]) for batch in made] == [4] * 12 + [2]
    counts = chats.stream.taker.counts
    assert counts.dropped
    assert any(line.startswith("dropped: ") for line in chats.stream.taker.lines())
    assert max(batch["inputs"]["input_ids"].shape[1] for batch in made) <= 64


def test_what_is_too_long_is_an_error_where_nothing_says_what_becomes_of_it(load, chat_tokenizer):
    chats = load(rows_of(make_chats(50)))
    with pytest.raises(ValueError, match="of train are longer than data"):
        batches_of(chats, chat_tokenizer, ChatEncoding(24))


def test_a_conversation_with_a_special_token_is_an_error_with_its_address(load, chat_tokenizer):
    told = make_chats(50)
    told[30][1]["content"] = "say <|im_end|>"
    chats = load(rows_of(told))
    with pytest.raises(RefusedError, match=r"chats.jsonl:31: .*<\|im_end\|>"):
        batches_of(chats, chat_tokenizer, ChatEncoding(128, "right"))
    made = batches_of(
        load(rows_of(told), on_bad_row="skip"), chat_tokenizer,
        ChatEncoding(128, "right", on_bad_row="skip"),
    )  # fmt: skip
    assert len(list(chain.from_iterable(batch["rows"].tolist() for batch in made))) == 50
    assert 30 not in chain.from_iterable(batch["rows"].tolist() for batch in made)


def test_a_conversation_of_the_test_is_met_on_the_way(tmp_path, load, chat_tokenizer):
    told = make_chats(40)
    test = write_rows(tmp_path / "test.jsonl", rows_of([told[7]]))
    train = write_rows(tmp_path / "train.jsonl", rows_of(told))
    args = ChatArgs({"train": train, "test": test}, clean=PLAIN, on_overlap="drop", validation=0)
    chats = load_streamed_chats(args, StreamArgs(20, 5), tmp_path / "cache")
    made = batches_of(chats, chat_tokenizer, ChatEncoding(128, "right"))
    assert 7 not in chain.from_iterable(batch["rows"].tolist() for batch in made)
    assert "1 had the text of a validation or test row, left out" in chats.stream.taker.lines()
