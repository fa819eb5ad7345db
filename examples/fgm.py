"""Adversarial training: the loss must stay low where the embeddings of a text are moved a little in
the direction that raises it most (FGM; Miyato et al. 2017, arXiv:1605.07725, equation 5).

    python -m examples.fgm configs/imdb_quick.toml run.name=fgm

Three forward and two backward passes a step. A pass of its own looks for the direction: with the
compiled GELU and layer norm a backward pass through one forward pass runs once.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from openloop import open_job, read_config, run_job
from engine.losses import Batch
from models.heads import transformers_model

EPSILON = 1.0  # length of the move of a text, all its embeddings together
Loss = Callable[[nn.Module, Batch], Tensor]


@contextmanager
def changed_embeddings(model: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block the word embeddings (B, T, D) are what `change` makes of them."""
    table = transformers_model(model).get_input_embeddings()
    hook = table.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        hook.remove()


def fgm(plain_loss: Loss) -> Loss:
    """compute_loss for a plain one: the loss of a batch, and of the batch moved against it."""

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        embedded: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            embedded.append(output.detach().requires_grad_())
            return embedded[0]

        with changed_embeddings(model, keep):
            (gradient,) = torch.autograd.grad(plain_loss(model, batch), embedded)  # (B, T, D)
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)  # (B,): of each text for itself
        move = EPSILON * gradient / length[:, None, None]
        with changed_embeddings(model, lambda output: output + move):
            moved = plain_loss(model, batch)
        return plain_loss(model, batch) + moved

    return compute_loss


def main(words: Sequence[str]) -> dict[str, Any]:
    """Train the recipe words[0], changed by words[1:], with it. Without streams, in which the texts
    of a batch stand in one row: each is moved for itself."""
    job = open_job(read_config(words[0], [*words[1:], "speed.unpad=false"]))
    job.compute_loss = fgm(job.compute_loss)
    return run_job(job)


if __name__ == "__main__":
    main(sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
