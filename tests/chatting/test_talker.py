"""Replies, whole and in pieces: the same text, whatever it is asked beside."""

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from chats import ask

from job.chatting.pieces import Pieces

TEXTS = ["how are you", "i", "the film was good today and the film was", "thank you"]


def test_a_stream_is_the_reply_in_pieces(talk):
    talker = talk(temperature=1.0, seed=3)
    for number, text in enumerate(TEXTS):
        saying = talker.stream(ask(text), number)
        pieces = list(saying)
        reply = talker.reply(ask(text), number)
        assert "".join(pieces).rstrip() == reply.text == saying.reply.text
        assert (saying.reply.tokens, saying.reply.stopped) == (reply.tokens, reply.stopped)
        assert reply.seconds > 0


@pytest.mark.parametrize(
    "values", [{}, {"temperature": 1.2, "top_p": 0.9}], ids=["greedy", "drawn"]
)
def test_replies_in_batches_are_those_one_by_one(talk, values):
    talker = talk(**values)
    together = talker.replies([ask(text) for text in TEXTS])
    for number, (text, reply) in enumerate(zip(TEXTS, together, strict=True)):
        alone = talker.reply(ask(text), number)
        assert (reply.text, reply.tokens, reply.stopped) == (
            alone.text, alone.tokens, alone.stopped,
        )  # fmt: skip
    (again,) = talker.replies([ask(TEXTS[2])], [2])
    assert again.text == together[2].text
    assert talker.replies([]) == []


def test_batches_hold_prompts_of_like_length(talk):
    prompts = [[0] * n for n in (3, 9, 1, 8, 2, 9, 4)]
    assert list(talk(batch_size=3).batches(prompts)) == [[1, 5, 3], [6, 0, 4], [2]]


def test_answering_leaves_no_trace(talk, chat_model):
    chat_model.train()
    state = torch.get_rng_state()
    saying = talk(temperature=1.0).stream(ask("how"))
    for _ in saying:
        assert chat_model.training
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    chat_model.eval()


def test_who_goes_away_keeps_what_was_said(talk):
    talker = talk(max_tokens=40, temperature=1.0)
    saying = talker.stream(ask("how are you"))
    first = list(islice(saying, 2))
    assert saying.reply.stopped == "listener"
    assert saying.reply.text == "".join(first).rstrip()
    assert talker.reply(ask("how are you")).text.startswith(saying.reply.text)


def history(turns):
    spoken = [{"role": "system", "content": "be kind"}]
    for i in range(turns):
        spoken += [{"role": "user", "content": f"how are you {i}"},
                   {"role": "assistant", "content": f"fine {i}"}]  # fmt: skip
    return [*spoken, {"role": "user", "content": "and now"}]


def test_the_oldest_turns_are_left_out_and_the_system_stays(talk):
    talker, spoken = talk(max_tokens=20), history(12)
    prompt = talker.fit(spoken)
    assert prompt.left_out > 0
    assert prompt.left_out % 2 == 0  # a user begins what is left
    assert prompt.ids == talker.encode([spoken[0], *spoken[1 + prompt.left_out :]])
    assert len(prompt.ids) <= 96 - 20
    more = talker.encode([spoken[0], *spoken[prompt.left_out - 1 :]])
    assert len(more) > 96 - 20  # no more than had to be
    assert talker.fit(history(1)).left_out == 0


def test_a_last_message_without_room_is_refused(talk):
    talker = talk(max_tokens=20)
    with pytest.raises(ValueError, match="positions for 96, reply included"):
        talker.fit([*history(2), *ask("\u4f60\u597d" * 60)])
    close = ask("x!" * 40)  # some room, less than wanted
    assert 76 < len(talker.fit([*history(1)[:-1], *close]).ids) < 96
    assert talker.reply(close).tokens < 20


@pytest.mark.parametrize("turns", [3, 4, 5, 9, 30, 77, 400])
@pytest.mark.parametrize("system", [True, False], ids=["told first", "not told"])
@pytest.mark.parametrize("widths", [[1], [1, 40, 1, 3], [30, 1, 1], [1, 1, 60]])
def test_what_is_left_out_is_what_trying_all_leaves_out_in_few_tries(talk, turns, system, widths):
    calls, talker = [], talk(max_tokens=20)

    def encode(messages):
        calls.append(sum(len(message["content"]) for message in messages))
        return [5] * calls[-1]

    talker = replace(talker, encode=encode)
    spoken = [{"role": "system", "content": "s" * 7}] * system
    for i in range(turns):
        spoken += [{"role": "user", "content": "u" * widths[i % len(widths)]},
                   {"role": "assistant", "content": "a" * (2 + i % 3)}]  # fmt: skip
    spoken += ask("last")
    got = talker.fit(spoken)
    begins = range(system, len(spoken), 2)
    wanted = next(b for b in begins if 7 * system + letters(spoken[b:]) <= 96 - 20) - system
    assert (got.left_out, len(got.ids)) == (wanted, 7 * system + letters(spoken[system + wanted :]))
    assert len(calls) <= 3 + math.log2(turns + 1)
    assert sum(calls) <= 3 * letters(spoken) + 1000


def letters(messages):
    """How long they are together."""
    return sum(len(message["content"]) for message in messages)


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": "fine"}]])
def test_nothing_to_reply_to_is_an_error(talk, messages):
    with pytest.raises(ValueError, match="needs a message to reply to"):
        talk().reply(messages)


EMOJI = "fine \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 你好 é\u0301 – ok  two"


def test_pieces_hold_no_half_character_and_are_all_of_the_text(chat_tokenizer):
    tokens = chat_tokenizer(EMOJI)["input_ids"]
    pieces = Pieces(lambda ids: chat_tokenizer.decode(ids))
    parts = [pieces.add(token) for token in tokens]
    assert any(part == "" for part in parts)  # bytes that waited for others
    assert not any("\ufffd" in part for part in parts)
    assert "".join(parts) + pieces.end() == EMOJI


def test_a_half_character_at_the_end_is_shown_as_such(chat_tokenizer):
    tokens = chat_tokenizer("ok \U0001f600")["input_ids"][:-1]
    pieces = Pieces(chat_tokenizer.decode)
    text = "".join(pieces.add(token) for token in tokens)
    assert text == "ok "
    assert text + pieces.end() == chat_tokenizer.decode(tokens)
    assert pieces.end() == ""


def test_a_tokenizer_that_drops_the_first_blank_drops_no_other():
    from tokenizers import Tokenizer, decoders, models

    words = {"▁how": 0, "▁are": 1, "▁you": 2, "r": 3}
    raw = Tokenizer(models.WordLevel(words, unk_token="r"))
    raw.decoder = decoders.Metaspace()
    pieces = Pieces(raw.decode)
    assert [pieces.add(token) for token in (0, 1, 2, 3)] == ["how", " are", " you", "r"]


@pytest.mark.parametrize(("messages", "named"), [
    ("Hello", "got 'Hello'; expected a list"),
    ({"role": "user", "content": "Hello"}, "expected a list"),
    (None, "got 'None'"),
    (["Hello"], "message 1 is 'Hello'"),
    ([{"role": "user"}], "message 1 is"),
    ([{"role": "robot", "content": "Hello"}], "got role 'robot'; expected one of system, user"),
    ([{"role": ["user"], "content": "Hello"}], "got role"),
    ([{"role": "user", "content": 3}], "its content is no text"),
    ([{"role": "system", "content": "be kind"}], "the system's own"),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "assistant's own"),
    ([], "there is none"),
])  # fmt: skip
def test_what_is_no_conversation_to_reply_to_is_refused(talk, messages, named):
    with pytest.raises(ValueError, match="message") as refused:
        talk().reply(messages)
    assert named in str(refused.value)
