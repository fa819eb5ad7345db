"""R-Drop: two forward passes with different dropout should agree (Liang et al. 2021,
arXiv:2106.14448, equation 4). It takes twice the time, and says nothing where there is no dropout.

    python -m examples.r_drop configs/imdb_quick.toml run.name=r_drop model.dropout=0.1
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from openloop import open_job, read_config, run_job
from engine.losses import Batch, LossFn, logits_of

ALPHA = 1.0  # weight of the agreement


def r_drop(loss_fn: LossFn) -> Callable[[nn.Module, Batch], Tensor]:
    """compute_loss for the loss of a recipe, summed over the rows."""

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = [logits_of(model(**batch["inputs"])).float() for _ in range(2)]  # (B, C) each
        first, second = (F.log_softmax(one, dim=-1) for one in logits)
        there = F.kl_div(first, second, reduction="sum", log_target=True)
        back = F.kl_div(second, first, reduction="sum", log_target=True)
        plain = sum(loss_fn(one, batch["labels"]) for one in logits) / 2
        return plain + ALPHA * (there + back) / 2

    return compute_loss


def main(words: Sequence[str]) -> dict[str, Any]:
    """Train the recipe words[0], changed by words[1:], with it."""
    job = open_job(read_config(words[0], words[1:]))
    job.compute_loss = r_drop(job.loss_fn)
    return run_job(job)


if __name__ == "__main__":
    main(sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
