"""Where the texts of a padded batch lie in its stream: made by the host, which knows the lengths.

    padded (B, T)     a a a a · ·        stream (1, N)   a a a a b b c c c f f f
                      b b · · · ·                        └─────┘ └─┘ └───┘ └───┘
                      c c c · · ·        ends            0       4   6     9     12

A row is one text, or a pack of several where positions start again (layout_of).

The filling f, 1 to 64 tokens of no text, makes N a multiple of 64; or of 8 where fewer than 64
tokens are real, for one short text would be filled up to ten times its length. It counts as a text
of its own, so that attention on a GPU writes every row. Nothing here is asked of a device: on CUDA
a question would make the host wait for all that it has enqueued.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from models.fast.cpu.kernels import Spans
from models.fast.cpu.masks import PLACES
from models.methods.prefixed import Prefix

MULTIPLE, FEW = 64, 8  # tokens of a stream, and of one with fewer real ones than MULTIPLE
ON_DEVICE = ("real", "ends", "firsts", "counts")  # what a device reads; the rest is the host's


@dataclass(frozen=True)
class Keys:
    """Where keys and values lie, text by text as in Layout: with a prefix of P before each text and
    before the filling, (N + M P) of them."""

    spans: Spans
    longest: int
    ends: Tensor  # (M + 1,) int32
    firsts: Tensor  # (M,) int64
    own: Tensor  # (N,) int64: the place of each token of the stream
    before: Tensor  # (M * P,) int64: the places of the prefixes

    def insert(self, prefix: Tensor, stream: Tensor) -> Tensor:
        """prefix (P, H, D) before each text of a stream (N, H, D) -> (N + M P, H, D)."""
        longer = stream.new_empty(len(self.own) + len(self.before), *stream.shape[1:])
        copies = prefix.to(stream.dtype).repeat(len(self.firsts), 1, 1)
        return longer.index_copy(0, self.own, stream).index_copy(0, self.before, copies)


@dataclass(frozen=True)
class Layout:
    """How a batch of B rows of `width` becomes a stream of N tokens; n of them are real."""

    rows: int  # B
    width: int  # T
    longest: int  # tokens of the longest text, the filling included
    spans: Spans  # of each text in the stream, for kernels on the CPU
    ids: Tensor  # (1, N) int64, on the CPU: what a token is called, whatever the layout
    real: Tensor  # (n,) int64: place of each token of a text in the flattened batch
    ends: Tensor  # (M + 1,) int32: 0, then where each text that is not empty ends, and the filling
    firsts: Tensor  # (M,) int64: the first token of each of them
    counts: Tensor  # (M + 1,) int32: 0 to M, the ends of a stream of first tokens alone
    first_ids: Tensor  # (1, M) int64, on the CPU: ids of the first tokens
    keys: Keys | None = None  # where attention has a prefix; None: keys lie where the tokens do

    @property
    def filling(self) -> int:
        """Tokens at the end of the stream that belong to no text."""
        return self.ids.shape[1] - len(self.real)

    def stream(self, padded: Tensor) -> Tensor:
        """(B, T) -> (1, N), or (B, T, D) -> (1, N, D); zeros in the filling."""
        tokens = padded.flatten(0, 1)[self.real]
        return F.pad(tokens, (0, 0) * (tokens.dim() - 1) + (0, self.filling)).unsqueeze(0)

    def padded(self, stream: Tensor) -> Tensor:
        """(1, N, D) -> (B, T, D), zeros where there is no token; of a stream that holds nothing but
        the first tokens, (1, M, D), the others are zeros too."""
        places = self.real
        if stream.shape[1] != self.ids.shape[1]:
            places = self.real[self.firsts[:-1]]  # the last one is the filling's
        tokens = stream[0, : len(places)]
        empty = tokens.new_zeros(self.rows * self.width, tokens.shape[1])
        return empty.index_copy(0, places, tokens).view(self.rows, self.width, -1)

    def with_prefix(self, tokens: int) -> "Layout":
        """The same, and the places of keys with so many before each text."""
        texts = len(self.firsts)  # M, the filling among them
        number = torch.arange(self.ids.shape[1], device=self.ends.device)  # (N,)
        text = torch.searchsorted(self.ends[1:].contiguous(), number, right=True)
        firsts = self.firsts + tokens * torch.arange(texts, device=self.firsts.device)
        before = firsts.unsqueeze(1) + torch.arange(tokens, device=firsts.device)  # (M, P)
        spans, passed = [], 0
        for start, stop in self.spans:
            more = tokens if stop > start else 0  # an empty row has no queries, so no keys
            spans.append((start + passed, stop + passed + more))
            passed += more
        keys = Keys(
            spans=spans,
            longest=self.longest + tokens,
            ends=self.ends + tokens * self.counts,
            firsts=firsts,
            own=number + tokens * (text + 1),
            before=before.flatten(),
        )
        return replace(self, keys=keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Layout":
        """With all that a device reads on that device; ids and spans stay with the host."""
        there = {n: getattr(self, n).to(device, non_blocking=non_blocking) for n in ON_DEVICE}
        return replace(self, **there)

    def pin_memory(self) -> "Layout":
        """With those tensors in memory from which a device copies while the host goes on."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in ON_DEVICE})


def insert_prefix(prefix: Prefix, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Keys and values of a stream, (N, H, D) each, with a layer's prefix before each text."""
    assert layout.keys is not None, "the layout was made without a prefix"
    return layout.keys.insert(prefix.keys, k), layout.keys.insert(prefix.values, v)


def stream_length(real: int) -> int:
    """Tokens of a stream with so many real ones; at least one more, for the filling."""
    multiple = FEW if real < MULTIPLE else MULTIPLE
    return (real // multiple + 1) * multiple


def layout_of(mask: Tensor, positions: Tensor | None = None) -> Layout:
    """The layout of a batch with this mask (B, T), 1 for a real token, on the CPU. A row's tokens
    may have gaps between them; they keep their order. A row is one text; with `positions` (B, T) of
    its tokens a new one begins wherever they do not go on by one."""
    rows, width = mask.shape
    real = mask.flatten().nonzero().squeeze(1)
    filling = stream_length(len(real)) - len(real)
    stops = mask.sum(1).cumsum(0).tolist()
    if positions is not None:
        breaks = positions.flatten()[real].diff() != 1
        stops = sorted({*stops, *(breaks.nonzero().squeeze(1) + 1).tolist()})
    spans = list(pairwise([0, *stops]))
    texts = [*(end for (start, end) in spans if end > start), len(real) + filling]
    ends = torch.tensor([0, *texts], dtype=torch.int32)
    firsts = ends[:-1].long()
    names = torch.arange(rows).unsqueeze(1) * PLACES + torch.arange(width)  # (B, T)
    ids = F.pad(names.flatten()[real], (0, filling)).unsqueeze(0)
    return Layout(
        rows=rows,
        width=width,
        longest=max([filling, *(end - start for start, end in spans)]),
        spans=spans,
        ids=ids,
        real=real,
        ends=ends,
        firsts=firsts,
        counts=torch.arange(len(ends), dtype=torch.int32),
        first_ids=ids[:, firsts],
    )
