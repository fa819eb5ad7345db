"""A model is run once on a few words, to see how it works or whether it does."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from files.errors import meets_limit, one_line


@contextmanager
def trial(model: nn.Module, complaint: str, most: int = 200) -> Iterator[nn.Module]:
    """The model in evaluation mode, without gradients and with dice of its own; afterwards it
    trains or not as before. What its code raises becomes a ValueError: `complaint`, in which {}
    stands for the error, cut to `most` characters."""
    training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield model.eval()
    except Exception as error:  # whatever the model's code raises
        if meets_limit(error):
            raise
        raise ValueError(complaint.format(one_line(error, most))) from error
    finally:
        model.train(training)
