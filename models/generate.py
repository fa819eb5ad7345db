"""What a language model writes: a token at a time, each from those before it.

    prompts ── read whole ── logits (B, V) ── choose_tokens ── (B,) ──┐
                                ▲        repetition penalty,         │ until its end token,
                                │        temperature, top-k, top-p   │ or its length
              keys and values kept, one token read ◄─────────────────┘

The model runs as it is, adapters and fast paths included, by its own forward. Prompts of one batch
stand on the right, padding before them. A token is drawn by a number that follows from the seed,
the number of the prompt and the place in its reply alone: what else is in the batch, and which
answers have ended, moves a reply by no more than rounding.
"""

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.architectures import longest_text
from models.heads import transformers_model
from models.methods.method import tokens_in_front
from models.methods.prefixed import keys_in_front
from models.names import named_seed
from models.reader import build_reader

Stopped = Literal["eos", "length"]  # by itself, or where it was cut
Within = Callable[[], AbstractContextManager]
FEW = 0.75  # rows that have ended leave a batch once no more than so many go on


@dataclass(frozen=True)
class GenerateArgs:
    """How a reply is written. `temperature` 0 takes the likeliest token each time; else tokens are
    drawn, `top_k` and `top_p` (Holtzman et al. 2020, arXiv:1904.09751) leaving out unlikely ones.
    `repetition_penalty` (Keskar et al. 2019, arXiv:1909.05858) makes what was there already less
    likely. Raises ValueError for what is out of range."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, right, expected in (
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 (the likeliest) or more"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more"),
            ("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "more than 0"),
        ):
            if not right:
                raise ValueError(f"generate.{name} is {getattr(self, name)}; expected {expected}")


@dataclass(frozen=True)
class Generated:
    """The tokens of a reply, without the one that ended it, and why it ended."""

    tokens: list[int]
    stopped: Stopped


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    args: GenerateArgs,
    ends: Collection[int],
    numbers: Sequence[int] | None = None,
) -> list[Generated]:
    """A reply to each prompt, its token ids, all in one batch. `ends` are the tokens that end one.

    `numbers` of the prompts, by default 0, 1, …, decide with the seed what is drawn. The model is
    called as it stands: evaluation mode, no_grad and autocast are the caller's. Raises ValueError
    for a prompt that is empty, or as long as the model has positions.
    """
    replies: list[list[int]] = [[] for _ in prompts]
    for tokens in write_tokens(model, prompts, args, ends, numbers):
        for row, token in tokens.items():
            replies[row].append(token)
    return [end_reply(tokens, ends) for tokens in replies]


def stream(
    model: nn.Module,
    prompt: Sequence[int],
    args: GenerateArgs,
    ends: Collection[int],
    number: int = 0,
    within: Within = nullcontext,
) -> Generator[int, None, Stopped]:
    """The tokens of one reply, each as soon as it is there, without the one that ends it; then
    returns why it ended. Who has enough of it stops asking.

    Each call of the model happens in a new `within()`: a context that went on between two tokens
    would hold for the caller too. Raises ValueError as generate does.
    """
    for tokens in write_tokens(model, [prompt], args, ends, [number], within):
        if tokens[0] in ends:
            return "eos"
        yield tokens[0]
    return "length"


def end_reply(tokens: list[int], ends: Collection[int]) -> Generated:
    """What was written up to a token that ends it, which is the last one if there is one."""
    if tokens and tokens[-1] in ends:
        return Generated(tokens[:-1], "eos")
    return Generated(tokens, "length")


def room(model: nn.Module) -> int | None:
    """Tokens that prompt and reply may have together; None where there is no limit."""
    longest = longest_text(transformers_model(model))
    if longest is None:
        return None
    return longest - max(tokens_in_front(model), keys_in_front(model))


def write_tokens(
    model: nn.Module, prompts: Sequence[Sequence[int]], args: GenerateArgs, ends: Collection[int],
    numbers: Sequence[int] | None = None, within: Within = nullcontext,
) -> Iterator[dict[int, int]]:  # fmt: skip
    """Of each step the next token by row, of the rows that go on; one of `ends` is a row's last."""
    limits = [min(args.max_tokens, left) for left in check_room(model, prompts)]
    numbers = range(len(prompts)) if numbers is None else numbers
    if not prompts:
        return
    with within():
        reader = build_reader(model, prompts)
        logits = reader.start()  # (B, V)
    seen = seen_before(prompts, logits) if args.repetition_penalty != 1 else None
    rows = list(range(len(prompts)))  # which the batch still holds
    going = set(rows)
    for place in range(max(limits, default=0)):
        draws = [draw(args.seed, numbers[row], place) for row in rows]
        chosen = choose_tokens(logits, args, draws, seen)  # (B,)
        written = dict(zip(rows, finite_tokens(chosen, logits), strict=True))
        yield {row: token for row, token in written.items() if row in going}
        going = {row for row in going if place + 1 < limits[row] and written[row] not in ends}
        if not going:
            return
        if seen is not None:
            seen.scatter_(1, chosen.unsqueeze(1), True)
        # past its last position nothing can be read of a row, not even what nobody looks at
        full = any(place + 1 >= limits[row] for row in rows if row not in going)
        if full or len(going) <= FEW * len(rows):
            kept = [i for i, row in enumerate(rows) if row in going]
            index = torch.tensor(kept, device=chosen.device)
            reader.keep(index, kept)
            rows, chosen = [rows[i] for i in kept], chosen[index]
            seen = None if seen is None else seen[index]
        with within():
            logits = reader.read(chosen)


def check_room(model: nn.Module, prompts: Sequence[Sequence[int]]) -> list[int]:
    """How many tokens a reply to each prompt may have. Raises ValueError as generate does."""
    most = room(model)
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} has no token")
        if most is not None and len(prompt) >= most:
            raise ValueError(
                f"prompt {number} has {len(prompt):,} tokens; the model has positions for {most:,},"
                " reply included: shorten it"
            )
    return [10**9 if most is None else most - len(prompt) for prompt in prompts]


# Which token


def draw(seed: int, number: int, place: int) -> float:
    """The number in [0, 1) that decides a token, with 32 bits."""
    return (named_seed(seed, f"{number}/{place}") >> 31) / 2**32


def choose_tokens(
    logits: Tensor, args: GenerateArgs, draws: Sequence[float], seen: Tensor | None
) -> Tensor:
    """(B,) tokens from logits (B, V). `seen` (B, V) bool are those that prompt or reply hold; only
    a repetition penalty asks."""
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if seen is not None:
        penalty = args.repetition_penalty
        punished = torch.where(scores < 0, scores * penalty, scores / penalty)
        scores = torch.where(seen, punished, scores)
    if args.temperature == 0:
        return scores.argmax(-1)
    shares, tokens = candidates(scores, args)
    # the first candidate up to which the probabilities are more than the number drawn
    mounting = shares.cumsum(-1)  # (B, K)
    levels = torch.tensor(draws, dtype=shares.dtype, device=logits.device).unsqueeze(1)  # (B, 1)
    places = torch.searchsorted(mounting, levels * mounting[:, -1:], right=True)
    return (places if tokens is None else tokens.gather(1, places)).squeeze(1)


def candidates(scores: Tensor, args: GenerateArgs) -> tuple[Tensor, Tensor | None]:
    """(shares (B, K), tokens (B, K)) from scores (B, V): which tokens may be drawn, the likeliest
    first, and how likely each is against the others, 0 beyond top-p. Without top-k and top-p all of
    them, as they stand in the vocabulary, and None."""
    scores, tokens = scores / args.temperature, None
    if args.top_k is not None:
        scores, tokens = scores.topk(min(args.top_k, scores.shape[-1]))
    elif args.top_p < 1:
        scores, tokens = scores.sort(descending=True)
    # float64, which MPS has not: of 100,000 small shares fp32 would lose some
    shares = (scores if scores.device.type == "mps" else scores.double()).softmax(-1)
    if args.top_p < 1:  # those that are needed to come to p: what is before one is less
        shares = shares.masked_fill(shares.cumsum(-1) - shares >= args.top_p, 0)
    return shares, tokens


def finite_tokens(chosen: Tensor, logits: Tensor) -> list[int]:
    """The chosen tokens (B,) on the host; the one wait for the device. Raises ValueError where the
    model's logits (B, V) are no numbers."""
    scores = logits.gather(1, chosen.clamp(max=logits.shape[1] - 1).unsqueeze(1)).squeeze(1)
    tokens, finite = torch.stack([chosen, scores.isfinite().long()]).tolist()
    if not all(finite):
        raise ValueError(
            "the model answers with logits that are no numbers (NaN or infinite): its weights are "
            "broken, or precision.dtype is too coarse for it; try fp32"
        )
    return list(tokens)


def seen_before(prompts: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """(B, V) bool: which tokens each prompt holds. Padding is none of them."""
    seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    for row, prompt in enumerate(prompts):
        seen[row, torch.tensor(prompt, device=logits.device)] = True
    return seen
