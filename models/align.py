"""Weights in memory of their own.

Mapped from a file, a tensor begins wherever the header before it ends. Some products round
otherwise on such a boundary: a model and its export, whose headers differ, would not give the same
bits.
"""

from torch import nn

BOUNDARY = 64  # bytes, as torch allocates


def align(model: nn.Module) -> None:
    """Copy what does not begin on a boundary that torch would choose."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.data_ptr() % BOUNDARY:
            tensor.data = tensor.data.clone()
