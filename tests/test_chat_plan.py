"""The plan's shares of what is cut, for every way to treat what is too long, by a recount."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from talks import CHATML, SMOLLM, raw_tokenizer, rows_of, talk, tokenizer_for

from data.chat.encode import ChatEncoding, encode_chats
from job.tasks.chat import Chat
from report.plan import plan_lines
from tests.report.test_plan import PLAN

__all__ = ["raw_tokenizer", "tokenizer_for"]
LONG = talk("hi", "yo", "how are you", "fine", "what is it", "good", "thanks", "bye")
SHORT = talk("hi", "yo")
HUGE = talk("hi", "yo", "how are you " * 30, "fine", "tell me", "good")
DEAF = [*LONG, {"role": "user", "content": "how are you fine and what is it"}]
TEXT = [{"role": "text", "content": "how are you fine and what is it good " * 10}]


def cells(tokenizer, chats, **settings):
    """The cells of the plan's row, the Truncation behind it, and the counts."""
    encoding = ChatEncoding(**({"max_length": 30, "on_bad_row": "skip"} | settings))
    _, counts = encode_chats(rows_of(*chats), tokenizer, encoding, None, "f")
    job = SimpleNamespace(counts={"train": counts})
    truncation = Chat().sections(job).truncation
    plan = replace(PLAN, rows={"train": counts.rows}, truncation=truncation)
    line = next(line for line in plan_lines(plan) if " train " in line and "%" in line)
    return line.split()[2:], truncation["train"], counts


def size(tokenizer, chat):
    encoded, _ = encode_chats(rows_of(chat), tokenizer, ChatEncoding(10_000), None, "f")
    return encoded.tokens


MIXES = {
    "two of three": [LONG, SHORT, LONG],
    "one of eight": [SHORT] * 7 + [LONG],
    "some huge": [HUGE, SHORT, HUGE, LONG],
    "none": [SHORT, SHORT],
}


@pytest.mark.parametrize("template", [CHATML, SMOLLM])
@pytest.mark.parametrize("overlong", ["left", "right", "drop", "split"])
@pytest.mark.parametrize("mix", MIXES)
def test_no_share_is_more_than_all_and_rows_are_of_all_that_were_read(
    mix, overlong, template, tokenizer_for
):
    tokenizer, chats = tokenizer_for(template), MIXES[mix]
    most = 40 if template == SMOLLM else 30
    shown, cut, counts = cells(tokenizer, chats, overlong=overlong, max_length=most)
    sizes = [size(tokenizer, chat) for chat in chats]
    over = [n for n in sizes if n > most]
    assert shown[0] == f"{100 * len(over) / len(chats):.1f}"
    assert (cut.rows, cut.cut_rows, cut.tokens) == (len(chats), len(over), sum(sizes))
    if overlong == "drop":
        assert cut.cut_tokens == sum(over) == counts.dropped_tokens
    elif overlong != "split":  # the huge one keeps an answer on one side at least
        assert cut.cut_tokens == sum(over) - most * (len(over) - counts.lost)
    assert 0 <= cut.cut_tokens <= cut.tokens
    assert cut.tokens - cut.cut_tokens <= counts.tokens  # a split repeats the system's message


@pytest.mark.parametrize("system", [None, "tell me"])
def test_of_a_split_those_tokens_are_cut_that_no_row_holds(system, tokenizer_for):
    tokenizer = tokenizer_for(CHATML)
    chat = [*talk(system=system), *HUGE, *DEAF]
    _, cut, counts = cells(tokenizer, [chat, SHORT], overlong="split", max_length=36)
    lost = [*HUGE[2:4], *DEAF[-1:] * ("no_reply" in counts.exchanges)]
    assert counts.exchanges["too_long"] == 1
    assert cut.cut_tokens == size(tokenizer, chat) - size(
        tokenizer, [message for message in chat if not any(message is one for one in lost)]
    )


def test_a_split_that_loses_nothing_cuts_no_tokens(tokenizer_for):
    shown, cut, _ = cells(tokenizer_for(CHATML), [LONG, SHORT], overlong="split")
    assert (shown[0], cut.cut_tokens) == ("50.0", 0)


@pytest.mark.parametrize("most", range(2, 40))
def test_of_a_text_one_token_at_most_is_cut_and_said(most, tokenizer_for):
    tokenizer = tokenizer_for(CHATML)
    _, cut, counts = cells(tokenizer, [TEXT], overlong="split", max_length=most)
    assert cut.tokens == size(tokenizer, TEXT)
    assert cut.cut_tokens == cut.tokens - counts.tokens == (cut.tokens % most == 1)
    assert ("cut off: 1 tokens" in counts.lines()) == (cut.cut_tokens == 1)


def test_a_conversation_that_loses_its_answer_is_cut_whole(tokenizer_for):
    asked = talk("how are you fine and what is it good thanks bye tell me " * 3, "yo")
    tokenizer = tokenizer_for(CHATML)
    _, cut, counts = cells(tokenizer, [SHORT, asked], overlong="right")
    assert (cut.rows, cut.cut_rows, counts.lost) == (2, 1, 1)
    assert cut.cut_tokens == size(tokenizer, asked)


@pytest.mark.parametrize("overlong", ["drop", "split", "left"])
def test_the_record_of_a_run_has_the_same_numbers(overlong, tokenizer_for):
    _, cut, counts = cells(tokenizer_for(CHATML), [HUGE, LONG, SHORT], overlong=overlong)
    job = SimpleNamespace(counts={"train": counts})
    record = Chat().lengths(job)["train"]
    assert (record["cut_rows"], record["cut_tokens"]) == (cut.cut_rows, cut.cut_tokens)
