"""What becomes of conversations that are too long, and that everything lost is counted."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talks import rows_of, talk

from data.chat.encode import ChatEncoding, encode_chats
from data.chat.length import split_turns
from data.refused import RefusedError

LONG = talk("hi", "yo", "how are you", "fine", "what is it", "good", "thanks", "bye")
SHORT = talk("hi", "yo")


def encode(tokenizer, *chats, cache=None, **settings):
    encoding = ChatEncoding(**({"max_length": 30} | settings))
    return encode_chats(rows_of(*chats), tokenizer, encoding, cache, "f")


def whole_row(tokenizer, messages):
    encoded, _ = encode(tokenizer, messages, max_length=1000)
    return encoded.dataset[0]


def test_without_a_choice_an_error_says_what_each_would_do(chatml):
    size = whole_row(chatml, LONG)["length"]
    with pytest.raises(ValueError, match="1 of 2 conversations of train are longer") as caught:
        encode(chatml, SHORT, LONG)
    message = str(caught.value)
    assert f"by {size - 30} tokens together" in message
    assert f"leaves out 1 rows, {size} tokens" in message
    assert all(f'"{choice}"' in message for choice in ("left", "right", "drop", "split"))
    encoded, counts = encode(chatml, SHORT)
    assert (encoded.rows, counts.overlong) == (1, 0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_cut_keeps_one_end_and_its_labels(side, chatml):
    whole = whole_row(chatml, LONG)
    encoded, counts = encode(chatml, LONG, overlong=side)
    (row,) = encoded.dataset
    kept = slice(-30, None) if side == "left" else slice(30)
    assert row["input_ids"] == whole["input_ids"][kept]
    assert row["labels"][:-1] == whole["labels"][kept][:-1]
    assert row["labels"][-1] == -100
    assert (row["length"], row["full_length"]) == (30, whole["length"])
    assert counts.cut_tokens == encoded.cut_tokens == whole["length"] - 30
    assert counts.tokens == encoded.tokens == 30
    assert encoded.truncated_rows == counts.overlong == 1


def test_a_row_whose_answer_is_cut_off_is_refused_or_skipped_and_counted(chatml):
    asked = talk("how are you fine and what is it good thanks bye tell me " * 3, "yo")
    with pytest.raises(RefusedError, match="the cut left no token") as caught:
        encode(chatml, SHORT, asked, overlong="right")
    assert caught.value.rows == ["chats.jsonl:2"]
    encoded, counts = encode(chatml, SHORT, asked, overlong="right", on_bad_row="skip")
    assert (encoded.rows, counts.lost, counts.bad) == (1, 1, {"answer_cut": 1})
    assert "WARNING: 1 conversations lose their whole answer by the cut" in counts.lines()
    encoded, counts = encode(chatml, SHORT, asked, overlong="left")
    assert (encoded.rows, counts.lost) == (2, 0)


def test_drop_leaves_out_whole_conversations(chatml):
    encoded, counts = encode(chatml, LONG, SHORT, overlong="drop")
    assert encoded.dataset["row"][:] == [101]
    assert counts.dropped == 1
    assert counts.dropped_tokens == whole_row(chatml, LONG)["length"]
    with pytest.raises(ValueError, match="no conversation of train gives a row"):
        encode(chatml, LONG, overlong="drop")


def test_split_cuts_between_turns_and_repeats_the_system_message(chatml):
    long = [{"role": "system", "content": "tell me"}, *LONG]
    encoded, counts = encode(chatml, long, max_length=40, overlong="split")
    texts = [chatml.decode(row["input_ids"]) for row in encoded.dataset]
    assert len(texts) > 1
    head = "<|im_start|>system\ntell me<|im_end|>\n<|im_start|>user\n"
    assert all(text.startswith(head) for text in texts)
    assert all(text.endswith("<|im_end|>\n") for text in texts)
    said = "".join(text.removeprefix("<|im_start|>system\ntell me<|im_end|>\n") for text in texts)
    alone = chatml.decode(whole_row(chatml, LONG)["input_ids"])
    assert said == alone
    assert set(encoded.dataset["row"]) == {100}
    assert (counts.split, counts.pieces, counts.exchanges) == (1, len(texts), {})
    assert max(encoded.dataset["length"]) <= 40


def test_an_exchange_too_long_alone_is_left_out_of_a_split(chatml):
    long = talk("hi", "yo", "how are you " * 20, "fine", "hi", "yo")
    encoded, counts = encode(chatml, long, overlong="split")
    assert encoded.rows == 2
    assert counts.exchanges == {"too_long": 1}
    assert "exchanges left out: 1 (too long alone)" in counts.lines()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 20))
def test_a_split_is_greedy_and_loses_only_what_does_not_fit(sizes, room):
    chat = [
        message
        for i, size in enumerate(sizes)
        for message in talk(f"{i}", "x" * size)
    ]  # fmt: skip

    def fits(messages):
        return sum(len(m["content"]) for m in messages if m["role"] == "assistant") <= room

    pieces, alone = split_turns(chat, fits)
    assert all(map(fits, pieces))
    kept = [int(m["content"]) for piece in pieces for m in piece if m["role"] == "user"]
    assert kept == [i for i, size in enumerate(sizes) if size <= room]
    lost = [int(m["content"]) for part in alone for m in part if m["role"] == "user"]
    assert lost == [i for i, size in enumerate(sizes) if size > room]
    for piece, following in pairwise(pieces):
        neighbours = int(piece[-2]["content"]) + 1 == int(following[0]["content"])
        assert not (neighbours and fits([*piece, *following[:2]]))


def test_plain_text_is_cut_into_rows_and_all_of_it_learned(chatml):
    text = [{"role": "text", "content": "how are you fine and what is it good " * 10}]
    whole = whole_row(chatml, text)
    assert whole["labels"][:-1] == whole["input_ids"][1:]
    assert whole["input_ids"][-1] == chatml.eos_token_id
    encoded, _ = encode(chatml, text, overlong="split")
    joined = [token for row in encoded.dataset for token in row["input_ids"]]
    assert joined == whole["input_ids"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"overlong": "middle"}, "data.overlong"), ({"learn": "none"}, "data.learn"),
     ({"max_length": 1}, "data.max_length"), ({"on_bad_row": "drop"}, "data.on_bad_row"),
     ({"learn": "last", "overlong": "split"}, "data.overlong")],
)  # fmt: skip
def test_a_wrong_setting_is_named(settings, message, chatml):
    with pytest.raises(ValueError, match=message):
        encode(chatml, SHORT, **settings)


def test_a_refused_conversation_is_named_or_skipped(chatml):
    evil = talk("hi<|im_end|>", "yo")
    with pytest.raises(RefusedError, match=r"1 of 2.*a special token"):
        encode(chatml, SHORT, evil)
    _, counts = encode(chatml, SHORT, evil, on_bad_row="skip")
    assert counts.bad == {"special_token": 1}
    assert any("special token" in line for line in counts.lines())


def test_the_cache_is_hit_with_its_counts_until_something_changes(chatml, tmp_path):
    first, counts = encode(chatml, LONG, SHORT, cache=tmp_path, overlong="right")
    again, same = encode(chatml, LONG, SHORT, cache=tmp_path, overlong="right")
    assert (first.hit, again.hit) == (False, True)
    assert counts == same
    assert first.dataset[:] == again.dataset[:]
    for change in ({"learn": "all"}, {"overlong": "left"}, {"template": "plain"}):
        other, _ = encode(chatml, LONG, SHORT, cache=tmp_path, **({"overlong": "right"} | change))
        assert not other.hit
    chatml.eos_token = "</s>"
    assert not encode(chatml, LONG, SHORT, cache=tmp_path, overlong="right")[0].hit


def test_counts_are_a_recount(chatml):
    encoded, counts = encode(chatml, LONG, SHORT, *[talk("hi", "yo " * n) for n in range(1, 30)],
                             overlong="split")  # fmt: skip
    rows = encoded.dataset[:]
    assert counts.rows == encoded.rows == len(rows["length"])
    assert counts.tokens == sum(map(len, rows["input_ids"])) == sum(rows["length"])
    assert counts.learned == sum(int((np.array(one) != -100).sum()) for one in rows["labels"])
