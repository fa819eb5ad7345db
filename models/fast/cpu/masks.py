"""Dropout masks as a hash of where an element stands: redrawn when needed, never stored.

One 64-bit key is drawn from torch's generator for each dropout of a forward. A row of elements
(the channels of a token, or the keys that one query of one head looks at) has an id that does not
depend on the layout: its place in the batch and in its text. Then

    row    = hash of (key, id)                     one 32-bit number a row
    column = hash of (key', number)                16 numbers for each 32 elements of a row
    bits   = mix(row ^ column)                     the lower and upper 16 judge one element each

and an element is dropped where its 16 bits are below p * 2**16, so the rate is p to 2**-17 and
the survivors are scaled by the exact inverse. The same text gets the same mask padded or in a
stream, in the forward, the backward and a recomputed forward, in plain torch and in kernels.h.

`hash_ids` is the finalizer of splitmix64 (Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195);
`mix` is lowbias32 from Wellons' "Prospecting for hash functions", less its first shift.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32  # elements judged by 16 hashes
PLACES = 1 << 20  # ids: row of the batch * PLACES + position in the row


@dataclass(frozen=True)
class Draw:
    """What a dropout needs to redraw its mask. `rows` int32 (any shape), `columns` int32
    (16 * blocks,); an element stays where its 16 bits reach `threshold`."""

    rows: Tensor
    columns: Tensor
    threshold: int
    scale: float


def draw_key() -> int:
    """62 bits from torch's CPU generator, which the engine seeds before each forward."""
    return int(torch.randint(0, 1 << 62, ()).item())


def signed(value: int, bits: int) -> int:
    """A constant as torch's signed integers hold it."""
    return value - (1 << bits) if value >> (bits - 1) else value


def hash_ids(ids: Tensor, key: int) -> Tensor:
    """int64 ids of any shape -> int32 hashes of the same shape."""
    z = ids * signed(0x9E3779B97F4A7C15, 64) + key
    z = (z ^ ((z >> 30) & (1 << 34) - 1)) * signed(0xBF58476D1CE4E5B9, 64)
    z = (z ^ ((z >> 27) & (1 << 37) - 1)) * signed(0x94D049BB133111EB, 64)
    return (z >> 32).to(torch.int32)  # the upper half is the better one


def make_draw(p: float, ids: Tensor, count: int) -> Draw:
    """Draw a key from the generator for rows with these int64 ids and `count` elements each."""
    key = draw_key()
    threshold = min(round(p * 65536), 65535)  # at a rate of 1 the scale would be infinite
    blocks = -(-count // BLOCK)
    columns = hash_ids(torch.arange(16 * blocks), key ^ (1 << 61))
    return Draw(hash_ids(ids, key), columns, threshold, 65536 / (65536 - threshold))


def keep_bits(draw: Draw, count: int) -> Tensor:
    """int32 (..., count): all ones where an element stays, 0 where it is dropped.

    `draw.rows` is (...). An AND with the bits of fp32 numbers costs a tenth of a bool mask.
    """
    x = (draw.rows.unsqueeze(-1) ^ draw.columns).unflatten(-1, (-1, 16))  # (..., blocks, 16)
    x.mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF))
    x.mul_(signed(0x846CA68B, 32))
    upper = (x >> 16).bitwise_and_(0xFFFF)
    lower = x.bitwise_and_(0xFFFF).bitwise_xor_(upper)
    halves = torch.stack([lower, upper], dim=-2)  # (..., blocks, 2, 16)
    # negative exactly where the 16 bits reach the threshold; the shift copies the sign
    halves.neg_().add_(draw.threshold - 1).bitwise_right_shift_(31)
    return halves.flatten(-3)[..., :count]
