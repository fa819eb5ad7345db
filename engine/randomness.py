"""Randomness is counted, not carried: every draw is a pure function of counters.

Before each forward the engine seeds torch's generator from (seed, epoch, micro-batch index). So a
resumed run needs only those counters to draw the same dropout masks, and nothing that happens in
between (an evaluation, a log line, another number of data workers) can change what is trained.
"""

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mix(*counters: int) -> int:
    """One 63-bit seed from a tuple of integers; near tuples give unrelated seeds."""
    packed = struct.pack(f"<{len(counters)}q", *counters)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def seed_forward(seed: int, epoch: int, micro_batch: int) -> None:
    """Seed torch, on every device in use, for the forward of one micro-batch, by its index.
    Not by torch.manual_seed, which for devices that nobody uses notes the whole stack each time.
    """
    mixed = mix(seed, epoch, micro_batch)
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(mixed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(mixed)


@contextmanager
def preserve_randomness() -> Iterator[None]:
    """Give back torch's, NumPy's and Python's generators as they were found."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
