"""A loss of your own: the focal loss, which looks away from rows that are right already
(Lin et al. 2017, arXiv:1708.02002, equation 4).

    python -m examples.own_loss configs/imdb_quick.toml run.name=focal
"""

import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from openloop import open_job, read_config, run_job
from engine.losses import loss_from_logits

GAMMA = 2.0  # 0 gives cross-entropy


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over the rows of -(1 - p)^gamma log p, p that of the right class. logits (B, C), labels
    (B,). A sum and not a mean: the engine divides by the rows of the whole window."""
    log_p = F.log_softmax(logits.float(), dim=-1)  # (B, C)
    log_p = log_p.gather(1, labels.unsqueeze(1)).squeeze(1)  # (B,)
    return -((1 - log_p.exp()) ** GAMMA * log_p).sum()


def main(words: Sequence[str]) -> dict[str, Any]:
    """Train the recipe words[0], changed by words[1:], with it."""
    job = open_job(read_config(words[0], words[1:]))
    job.compute_loss = loss_from_logits(focal_loss)  # what is minimised
    job.loss_fn = focal_loss  # what evaluations report as "loss"
    return run_job(job)


if __name__ == "__main__":
    main(sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
