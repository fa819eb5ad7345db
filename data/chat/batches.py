"""Rows of conversations, or packs of them, become one batch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from data.chat.encode import IGNORED
from data.loaders import Batch, Padding, collate


def collate_chats(rows: Sequence[Mapping[str, Any]], padding: Padding) -> Batch:
    """One batch of encoded conversations, or of packs. Padding is behind the text, whatever
    `padding.side` says.

    inputs: input_ids (B, T), attention_mask (B, T), of packs also position_ids (B, T), which begin
    at 0 with each conversation and are 0 at padding; labels (B, T), IGNORED where nothing is
    learned; rows (K,), the numbers of the conversations; all int64. tokens: number of real tokens.
    Mask and labels come from lengths, never from token ids: EOS is learned where it pads, too.
    """
    batch = collate(
        [{"input_ids": row["input_ids"]} for row in rows], replace(padding, side="right")
    )
    real = batch["inputs"]["attention_mask"].bool().numpy()  # (B, T)
    labels = np.full(real.shape, IGNORED, dtype=np.int64)
    labels[real] = np.concatenate([row["labels"] for row in rows])
    batch["labels"] = torch.from_numpy(labels)
    if "chats" not in rows[0]:
        batch["rows"] = torch.tensor([row["row"] for row in rows], dtype=torch.int64)
        return batch
    positions = np.zeros(real.shape, dtype=np.int64)
    positions[real] = np.concatenate([np.arange(n) for row in rows for n in row["chats"]])
    batch["inputs"]["position_ids"] = torch.from_numpy(positions)
    numbers = np.concatenate([row["rows"] for row in rows])
    batch["rows"] = torch.from_numpy(numbers.astype(np.int64))
    return batch
