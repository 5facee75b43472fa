"""Scoring a split with a model."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from trainer.data import Shards
from trainer.metrics import Metrics, evaluate
from trainer.rows import Batch

_BATCH_ROWS = 16_384
_CELLS = 4096  # history cells (rows x longest) scored at a time


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch's tensors."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.no_grad()
def score(
    model: nn.Module,
    columns: tuple[str, ...],
    shards: Shards,
    split: str,
    *,
    device: torch.device | None = None,
) -> Metrics:
    """Score every row of a split and measure it; the model keeps the mode it was in.

    Args:
        model: gives logits of B for a batch of B rows.
        columns: the columns that the model reads.
        shards: the data set.
        split: which split.
        device: where the model is; the CPU by default.
    """
    device = device or torch.device("cpu")
    was_training = model.training
    model.eval()
    logits, labels, users = [], [], []
    for groups in shards.grouped_batches(
        split, batch_size=_BATCH_ROWS, cells=_CELLS, columns=(*columns, "label", "user")
    ):
        for batch in groups:
            logits.append(model(to_device(batch, device)))
            labels.append(batch["label"])
            users.append(batch["user"])
    model.train(was_training)
    return evaluate(
        torch.cat(users).numpy(),
        torch.cat(labels).numpy().astype(np.int8),
        torch.cat(logits).float().cpu().numpy(),
    )
