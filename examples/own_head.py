"""A head of your own: the mean over the tokens and the largest value of each channel, together.

    python train.py --config configs/imdb_quick.toml run.name=own_head \
        head.kind=examples/own_head.py:MeanMaxHead --unset head.pool --allow-code

A head needs no program: `head.kind` names its file. A copy of the file travels with the model.
"""

import torch
from torch import Tensor, nn


class MeanMaxHead(nn.Module):
    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * hidden_size, num_labels))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """hidden (B, T, D) of all tokens, mask (B, T) with 1 for a real one -> logits (B, C)."""
        real = mask.unsqueeze(-1).to(hidden)  # (B, T, 1)
        mean = (hidden * real).sum(1) / real.sum(1).clamp(min=1)  # (B, D)
        most = hidden.masked_fill(real == 0, -torch.inf).amax(1)  # (B, D)
        return self.out(torch.cat([mean, most], dim=-1))
