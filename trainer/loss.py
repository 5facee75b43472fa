"""The loss that is minimised, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from schemas.errors import UsageError
from trainer.config import BALANCED, TrainConfig
from trainer.data import Shards
from trainer.models import InterestModel
from trainer.rows import Batch

Forward = Callable[[Batch], tuple[Tensor, Tensor | None]]


def gradients(
    model: InterestModel,
    batch: Batch,
    rows: int,
    *,
    forward: Forward | None = None,
    positive_weight: float = 1.0,
    amp: bool = False,
) -> Tensor:
    """Add a batch's part of the mean loss over `rows` rows to the gradients.

    The loss is cross-entropy, and the recipe's auxiliary loss with weight 1 (DIEN's released code).

    Args:
        model: gives logits of B.
        batch: B rows, with their labels.
        rows: rows of all groups that make one step.
        forward: the model's `with_auxiliary`, perhaps compiled; its own by default.
        positive_weight: of a positive row's cross-entropy; a negative one's is 1. The mean is over
            rows, not over weights.
        amp: whether to compute the model in bfloat16 where that is safe.

    Returns:
        The sum of the batch's weighted cross-entropies, detached.
    """
    label = batch["label"]
    forward = forward or model.with_auxiliary
    with torch.autocast(label.device.type, torch.bfloat16) if amp else nullcontext():
        logits, extra = forward(batch)
    # A sum over thousands of rows wants float32.
    weight = None if positive_weight == 1.0 else label.new_tensor(positive_weight)
    total = binary_cross_entropy_with_logits(
        logits.float(), label, pos_weight=weight, reduction="sum"
    )
    loss = total if extra is None else total + extra.float().sum()
    (loss / rows).backward()  # type: ignore[no-untyped-call]
    return total.detach()


def positive_weight(config: TrainConfig, shards: Shards) -> float:
    """The number that `loss_weight` means on a data set.

    Raises:
        UsageError: positives and negatives cannot be balanced, for one of them is absent.
    """
    if config.loss_weight != BALANCED:
        return float(config.loss_weight)
    rows = shards.manifest.rows["train"]
    labels = shards.batches("train", batch_size=65_536, columns=("label",))
    positives = sum(int(batch["label"].sum()) for batch in labels)
    if not 0 < positives < rows:
        raise UsageError(
            "Positives and negatives cannot be balanced.",
            where="--loss-weight",
            expected="a train split with both",
            got=f"{positives:,} positives among {rows:,} rows",
            do="give a number",
        )
    return (rows - positives) / positives
