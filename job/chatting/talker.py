"""A language model that one talks to: messages in, replies out, whole or as they come."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from data.chat.render import first_special
from data.chat.turns import ROLES, TEXT
from engine.evaluate import inference
from engine.precision import Precision
from job.chatting.pieces import Pieces
from models.generate import GenerateArgs, generate, room, stream

Message = dict[str, str]  # "role" and "content"


@dataclass(frozen=True)
class Reply:
    """What was said. `tokens` without the one that ended it; `stopped`: by itself ("eos"), cut at
    its length, or by who listened; `seconds` of the reply, or of the batch that it was in."""

    text: str
    tokens: int
    stopped: Literal["eos", "length", "listener"]
    seconds: float


class Prompt(NamedTuple):
    """The tokens that a reply follows, and how many messages, the oldest, had no room in them."""

    ids: list[int]
    left_out: int


def check_messages(messages: Any) -> None:
    """Raise ValueError for what is no conversation that somebody could reply to."""
    like = 'a list such as [{"role": "user", "content": "Hello!"}]'
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise ValueError(f"messages: got {str(messages)[:60]!r}; expected {like}")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise ValueError(f"message {number} is {str(message)[:60]!r}; expected {like}")
        if message["role"] not in (*ROLES, TEXT):
            raise ValueError(
                f"message {number}: got role {str(message['role'])[:60]!r}; expected one of "
                f"{', '.join(ROLES)}"
            )
        if not isinstance(message["content"], str):
            raise ValueError(f"message {number}: its content is no text")
    if not messages or messages[-1]["role"] in ("assistant", "system"):
        raise ValueError(
            "a reply needs a message to reply to; "
            + (f"the last one is the {messages[-1]['role']}'s own" if messages else "there is none")
        )


@dataclass(frozen=True)
class Talker:
    """`encode` gives the tokens of messages, up to where the assistant begins; it raises ValueError
    for what the template cannot say. `ends` are the tokens that end a reply. `args` with
    dataclasses.replace for other replies by the same model. `texts`: it goes on with plain texts,
    and reads the last message alone. `special` are the names that no message may say."""

    model: nn.Module
    tokenizer: Any
    encode: Callable[[Sequence[Message]], list[int]]
    ends: Collection[int]
    args: GenerateArgs
    precision: Precision
    batch_size: int = 8
    texts: bool = False
    special: Sequence[str] = ()

    def reply(self, messages: Sequence[Message], number: int = 0) -> Reply:
        """The reply to a conversation. `number` decides with the seed what is drawn; at temperature
        0 it moves nothing. Raises ValueError as `fit` does."""
        saying = self.stream(messages, number)
        for _ in saying:
            pass
        return saying.reply

    def stream(self, messages: Sequence[Message], number: int = 0) -> "Saying":
        """The same as it comes, in pieces of text. Raises ValueError as `fit` does."""
        return Saying(self, self.fit(messages), number)

    def replies(
        self, conversations: Sequence[Sequence[Message]], numbers: Sequence[int] | None = None
    ) -> list[Reply]:
        """A reply to each, in order, conversations of like length in one batch. `numbers` of them,
        by default 0, 1, …, decide with the seed what is drawn. Raises ValueError as `fit` does."""
        return self.answer([self.fit(messages) for messages in conversations], numbers)

    def answer(
        self, prompts: Sequence[Prompt], numbers: Sequence[int] | None = None
    ) -> list[Reply]:
        """The same of prompts that `fit` gave."""
        numbers = range(len(prompts)) if numbers is None else numbers
        replies: dict[int, Reply] = {}
        for places in self.batches([prompt.ids for prompt in prompts]):
            begun = time.perf_counter()
            with self.answering():
                written = generate(
                    self.model, [prompts[i].ids for i in places], self.args, self.ends,
                    [numbers[i] for i in places],
                )  # fmt: skip
            seconds = time.perf_counter() - begun
            for place, one in zip(places, written, strict=True):
                text = self.decode(one.tokens).strip()
                replies[place] = Reply(text, len(one.tokens), one.stopped, seconds)
        return [replies[place] for place in range(len(prompts))]

    def batches(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Places of prompts, the longest first, so that a batch holds prompts of like length."""
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def fit(self, messages: Sequence[Message]) -> Prompt:
        """The tokens of a conversation with room for a reply behind them: of one that is too long
        without its oldest turns, but with what the system says first.

        Raises ValueError for a conversation that nobody would reply to, or whose last message
        alone is longer than the model's positions.
        """
        check_messages(messages)
        most = room(self.model)
        if most is None:
            return Prompt(self.encode(messages), 0)
        wanted = most - min(self.args.max_tokens, most // 2)
        first = 1 if messages[0]["role"] == "system" else 0
        # a user begins what is left, and the last message stays
        begins = [i for i in range(first + 1, len(messages)) if messages[i]["role"] == "user"]
        whole = Prompt(self.encode(messages), 0)
        if len(whole.ids) <= wanted:
            return whole

        def rest(begin: int) -> Prompt:
            return Prompt(self.encode([*messages[:first], *messages[begin:]]), begin - first)

        # the earliest beginning that fits: halves, not one after the other, of a thousand turns
        shortest = rest(begins[-1]) if begins else whole
        best, low, high = shortest, 0, len(begins) - 1
        while low < high and len(shortest.ids) <= wanted:
            middle = (low + high) // 2
            tried = rest(begins[middle])
            if len(tried.ids) <= wanted:
                best, high = tried, middle
            else:
                low = middle + 1
        if len(best.ids) < most:  # one longer than wanted has the shorter reply for it
            return best
        raise ValueError(
            f"the last message has {len(best.ids):,} tokens with all that goes with it; the model "
            f"has positions for {most:,}, reply included: shorten it"
        )

    def untold(self, system: str) -> str | None:
        """Why the model cannot be told something before everything else; None where it can."""
        if self.texts:
            return "this run goes on with plain texts, and reads nothing before them"
        if name := first_special(system, self.special):
            return f"it says {name!r}, which the tokenizer reads as the token of that name"
        return None

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While the model answers: evaluation mode, no gradients, the precision's arithmetic; all
        of it, and every generator, is as before afterwards."""
        with inference(self.model), self.precision.autocast():
            yield

    def decode(self, tokens: Sequence[int]) -> str:
        """Their text, without special tokens."""
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


class Saying:
    """A reply as it is said. Go through it once for its pieces, one a token, empty where the token
    makes no text: who listens may go away after any of them. `reply` is what was said so far, all
    of it once there are no more pieces."""

    def __init__(self, talker: Talker, prompt: Prompt, number: int) -> None:
        self.left_out = prompt.left_out  # messages that had no room
        self.talker, self.prompt, self.number = talker, prompt, number
        self.texts: list[str] = []
        self.tokens = 0
        self.stopped: Literal["eos", "length", "listener"] = "listener"
        self.seconds = 0.0

    def __iter__(self) -> Iterator[str]:
        talker, pieces, begun = self.talker, Pieces(self.talker.decode), time.perf_counter()
        tokens = stream(
            talker.model, self.prompt.ids, talker.args, talker.ends, self.number, talker.answering
        )
        while True:
            try:
                token = next(tokens)
            except StopIteration as end:
                self.stopped = end.value
                break
            finally:
                self.seconds = time.perf_counter() - begun
            self.tokens += 1
            yield self._keep(pieces.add(token))
        yield self._keep(pieces.end())

    def _keep(self, piece: str) -> str:
        """The piece, without white space where nothing was said before."""
        if piece := piece if self.texts else piece.lstrip():
            self.texts.append(piece)
        return piece

    @property
    def reply(self) -> Reply:
        """What was said so far."""
        text = "".join(self.texts).rstrip()
        return Reply(text, self.tokens, self.stopped, self.seconds)
