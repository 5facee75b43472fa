"""The loss that is minimised, and its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from schemas.errors import ContractError, UsageError
from trainer.data.batches import LENGTH, WEIGHT, Batch
from trainer.data.shards import Shards
from trainer.models.interest import InterestModel
from trainer.models.recurrent import NextByNet
from trainer.training.config import TrainConfig

Forward = Callable[[Batch], tuple[Tensor, Tensor | None]]


def gradients(
    model: InterestModel,
    batch: Batch,
    rows: int,
    *,
    longest: int | None = None,
    forward: Forward | None = None,
    positive_weight: float = 1.0,
    amp: bool = False,
    mean_weight: float = 1.0,
) -> Tensor:
    """Add a batch's part of the mean loss over `rows` rows to the gradients.

    The loss is cross-entropy, and the recipe's auxiliary loss with weight 1 (DIEN's released code).
    A row's own weight, where the batch has them, multiplies both.

    Args:
        batch: B rows, with their labels.
        rows: rows of all groups that make one step.
        longest: the longest history of all these groups, which an auxiliary loss may be a mean
            over; this batch's by default.
        forward: the model's `with_auxiliary`, perhaps compiled; its own by default.
        positive_weight: of a positive row's cross-entropy; a negative one's is 1. The mean is over
            rows, not over weights.
        amp: whether to compute the model in bfloat16 where that is safe.
        mean_weight: what the rows' own weights are divided by, so that the mean loss is a weighted
            mean: see `weights_of`.

    Returns:
        The sum of the batch's weighted cross-entropies, detached.
    """
    label = batch["label"]
    forward = forward or model.with_auxiliary
    with torch.autocast(label.device.type, torch.bfloat16) if amp else nullcontext():
        logits, extra = forward(batch)
    # A sum over thousands of rows wants float32.
    weight = None if positive_weight == 1.0 else label.new_tensor(positive_weight)
    of_row = batch[WEIGHT] / mean_weight if WEIGHT in batch else None
    total = binary_cross_entropy_with_logits(
        logits.float(), label, of_row, pos_weight=weight, reduction="sum"
    )
    loss = total
    if extra is not None:
        extra = extra.float()
        extra = extra.sum() if of_row is None else extra @ of_row
        if isinstance(model.auxiliary, NextByNet):
            extra = extra / max(1, (longest or int(batch[LENGTH].max())) - 1)
        loss = total + extra
    (loss / rows).backward()  # type: ignore[no-untyped-call]
    return total.detach()


def positive_weight(config: TrainConfig, shards: Shards) -> float:
    """The number that `loss_weight` means on a data set.

    Raises:
        UsageError: positives and negatives cannot be balanced, for one of them is absent.
    """
    if not isinstance(config.loss_weight, str):
        return float(config.loss_weight)
    rows, positives = 0.0, 0.0
    for label, weight in _labels(shards):
        rows += float(weight.sum())
        positives += float(weight @ label)
    if not 0 < positives < rows:
        raise UsageError(
            "Positives and negatives cannot be balanced.",
            where="--loss-weight",
            expected="a train split with both",
            got=f"{positives:,.0f} positives among {rows:,.0f} rows",
            do="give a number",
        )
    return (rows - positives) / positives


def weights_of(shards: Shards) -> tuple[float, float]:
    """The mean of the rows' own weights over train, and the largest; 1 and 1 where they have none.

    A step's loss is the sum of its rows' weighted losses by its rows and by this mean: its
    expectation is the weighted mean over train, whatever rows a batch happens to hold, and rows
    that all weigh the same are trained on as rows without weights.

    Raises:
        ContractError: a weight is below 0 or no number, or all are 0.
    """
    if not shards.manifest.weight:
        return 1.0, 1.0
    least, most, total, rows = math.inf, 0.0, 0.0, 0
    for _, weight in _labels(shards):
        least, most = min(least, float(weight.min())), max(most, float(weight.max()))
        total, rows = total + float(weight.sum()), rows + len(weight)
    if not (least >= 0 and 0 < total < math.inf):
        raise ContractError(
            "The weights of train's rows cannot be used.",
            where=f"{shards.out}, column {WEIGHT}",
            expected="finite numbers from 0 on, some above",
            got=f"the least {least:g}, in all {total:g}",
            do="make the data set again with other weights",
        )
    return total / rows, most


def _labels(shards: Shards) -> Iterator[tuple[Tensor, Tensor]]:
    """Labels and weights of train, some rows at a time, in double precision; 1 without weights."""
    columns = ("label", WEIGHT) if shards.manifest.weight else ("label",)
    for batch in shards.batches("train", batch_size=65_536, columns=columns):
        label = batch["label"].double()
        yield label, batch[WEIGHT].double() if WEIGHT in batch else torch.ones_like(label)
