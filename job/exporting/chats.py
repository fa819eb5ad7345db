"""Test conversations: what openloop replies, token by token, and how an export's replies differ."""

import time
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch

from engine.precision import choose_precision
from job.chatting.before import TestPrompt, test_prompts
from job.chatting.load import make_talker, open_talker
from job.chatting.rows import load_chat_rows
from job.chatting.talker import Talker
from job.exporting.format import Parity, Source
from job.exporting.questions import Own, largest
from job.testing.score import check_same_rows
from models.generate import GenerateArgs, generate
from report.format import clean_line, shorten

MOST = 16  # prompts: each takes seconds
TOKENS = 32  # of a reply
SHOWN = 5  # prompts that are answered otherwise


@dataclass(frozen=True)
class Replies:
    """Token ids of prompts, openloop's greedy replies in fp32, and the log-probability of each of
    their tokens."""

    prompts: list[list[int]]
    replies: list[list[int]]
    logprobs: list[list[float]]
    texts: list[str]  # of the last message


def ask_chats(source: Source, most: int) -> Own:
    """The first test conversations up to their last reply, at most MOST, and openloop's replies to
    them, greedily."""
    chats = load_chat_rows(source.config)
    check_same_rows(source.config, source.folder, chats.fingerprint, chats.splits)
    opened, _ = open_talker(source.folder, "cpu", source.args.allow_code, source.base,
                            source.args.allow_network)  # fmt: skip
    fp32 = choose_precision("cpu", "fp32")
    plain = make_talker(source.config, source.model, source.tokenizer, fp32, source.plain_texts)
    args = GenerateArgs(max_tokens=TOKENS)
    opened, plain = replace(opened, args=args), replace(plain, args=args)
    prompts, _ = test_prompts(chats.splits["test"], min(most, MOST), plain)
    if not prompts:
        raise ValueError(f"{source.folder.path} has no test conversation that holds a reply")
    opened.answer([prompts[0].prompt])  # the first takes longer
    start, count = time.perf_counter(), 0
    for one in prompts:
        count += opened.answer([one.prompt])[0].tokens + 1
    seconds = time.perf_counter() - start
    replies = reply_tokens(plain, prompts)
    reference = Replies(
        [one.prompt.ids for one in prompts], replies,
        [logprobs_of(plain, one.prompt.ids, reply)
         for one, reply in zip(prompts, replies, strict=True)],
        [one.messages[-1]["content"] for one in prompts],
    )  # fmt: skip
    questions = {
        "task": "chat", "plain": source.plain_texts,
        "messages": [messages_of(one, plain, source.plain_texts) for one in prompts],
        "replies": replies, "tokens": TOKENS, "ends": sorted(plain.ends),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    return Own(
        questions,
        f"{len(prompts)} prompts of the test conversations, {TOKENS} tokens each at most",
        opened.precision.dtype, seconds, count, "tokens", reference,
    )  # fmt: skip


def messages_of(one: TestPrompt, talker: Talker, plain: bool) -> Any:
    """A prompt as a user of another tool has it: messages, or the text to go on with; what had no
    room is left out."""
    messages = one.messages[-(len(one.messages) - one.prompt.left_out) :]
    if one.messages[0]["role"] == "system" and messages[0]["role"] != "system":
        messages = [one.messages[0], *messages]
    return messages[-1]["content"] if plain else messages


def reply_tokens(talker: Talker, prompts: list[TestPrompt]) -> list[list[int]]:
    """The likeliest token each time, without the one that ends a reply."""
    replies = []
    for one in prompts:  # each by itself, as elsewhere
        with talker.answering():
            replies += generate(talker.model, [one.prompt.ids], talker.args, talker.ends)
    return [reply.tokens for reply in replies]


def logprobs_of(talker: Talker, prompt: list[int], reply: list[int]) -> list[float]:
    """The log-probability of each token of a reply."""
    ids = torch.tensor([prompt + reply])
    with talker.answering():
        output = talker.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    logprobs = output.logits[0].double().log_softmax(-1)  # (T, V)
    places = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(reply))
    return logprobs[places, torch.tensor(reply, dtype=torch.long)].tolist()


def compare_chats(own: Own, answers: dict[str, Any]) -> Parity:
    """Task.compare() of conversations. A prompt of other tokens counts as answered otherwise; where
    no reply has a token, no log-probability was compared."""
    reference: Replies = own.reference
    rows = zip(reference.prompts, reference.replies, reference.texts,
               answers["prompts"], answers["replies"], strict=True)  # fmt: skip
    alike, others, differing = 0, 0, []
    for prompt, reply, text, their_prompt, their_reply in rows:
        if prompt == their_prompt and reply == their_reply:
            alike += 1
            continue
        others += prompt != their_prompt
        what = "the prompt has other tokens" if prompt != their_prompt else "another reply"
        differing.append(f"{shorten(clean_line(text), 60)}: {what}")
    outputs = shares = None
    ours = torch.tensor([*chain.from_iterable(reference.logprobs)], dtype=torch.float64)
    theirs = torch.tensor([*chain.from_iterable(answers["logprobs"])], dtype=torch.float64)
    if len(ours) != len(theirs):
        raise ValueError(f"got {len(theirs)} log-probabilities, expected {len(ours)}")
    if len(ours):
        outputs, shares = largest(theirs - ours), largest(theirs.exp() - ours.exp())
    return Parity(
        len(reference.prompts), alike, shares, outputs, differing[:SHOWN],
        other_prompts=others, extra=answers.get("extra", {}),
    )  # fmt: skip
