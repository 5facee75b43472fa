"""Scoring a split with a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from schemas.errors import ContractError
from trainer.config import GPU_CELLS
from trainer.data import Shards
from trainer.metrics import Floats, Integers, Metrics, evaluate
from trainer.models import InterestModel
from trainer.ranks import ALONE, Ranks
from trainer.rows import LENGTH, Batch, Index
from trainer.sharing import sharing

_BATCH_ROWS = 16_384
# History cells (rows x longest) scored at a time.
_CELLS = {"cpu": 4096, "cuda": GPU_CELLS}
# Of history lengths: the paper's Table 3, and what has no history at all.
LENGTHS = (0, 1, 5, 10, 15, 20)


class NoScores(ContractError):
    """A model's scores are no numbers."""


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch's tensors."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def logits(
    model: InterestModel,
    shards: Shards,
    split: str,
    also: tuple[str, ...],
    *,
    device: torch.device | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Score every row of a split; the model keeps the mode it was in.

    Args:
        model: on `device`.
        shards: the data set.
        split: which split.
        also: columns to read beside those of the model.
        device: where the model is; the CPU by default.
        ranks: who scores: rows that are another one's have 0 here. Which rows are computed together
            does not depend on it, so that the sum over ranks is what one alone would give.

    Yields:
        Some rows, B of them in no particular order, and their logits on the CPU, B: finite.

    Raises:
        NoScores: some are not finite.
    """
    device = device or torch.device("cpu")
    was_training = model.training
    model.eval()
    columns = (*model.columns, *also)
    turn = 0
    try:
        with sharing():
            for groups in shards.grouped_batches(
                split, batch_size=_BATCH_ROWS, cells=_CELLS[device.type], columns=columns
            ):
                for batch in groups:
                    scored = torch.zeros(len(batch[LENGTH]))
                    if turn % ranks.world == ranks.rank:
                        with torch.no_grad():
                            scored = model(to_device(batch, device)).float().cpu()
                        _require_numbers(scored, shards, split)
                    turn += 1
                    yield batch, scored
    finally:
        model.train(was_training)


def _require_numbers(scored: torch.Tensor, shards: Shards, split: str) -> None:
    if not bool(scored.isfinite().all()):
        raise NoScores(
            "The model's scores are no numbers.",
            where=f"{shards.out}, split {split}",
            expected="finite scores",
            got="NaN or infinity",
            do="train again, with a lower `--lr`, and look for extreme values in "
            "the data set's float columns",
        )


def score(
    model: InterestModel,
    shards: Shards,
    split: str,
    *,
    device: torch.device | None = None,
    ranks: Ranks = ALONE,
) -> Metrics:
    """Score every row of a split and measure it; see `logits` for errors."""
    return score_by_length(model, shards, split, device=device, ranks=ranks)[0]


def score_by_length(
    model: InterestModel,
    shards: Shards,
    split: str,
    *,
    device: torch.device | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Metrics, dict[str, Metrics]]:
    """Score every row of a split and measure it as a whole and by ranges of history length.

    With several ranks each one scores its part, and all get the metrics of the whole.

    Returns:
        The metrics, and those of each range that has rows, e.g. of "5-9".
    """
    columns: list[tuple[torch.Tensor, ...]] = []
    for batch, scored in logits(
        model, shards, split, ("label", "user"), device=device, ranks=ranks
    ):
        columns.append((batch["user"], batch["label"], batch[LENGTH], scored))
    *stored, scores = (torch.cat(c) for c in zip(*columns, strict=True))
    ranks.add(scores)
    user, label, length, logit = (c.numpy() for c in (*stored, scores))
    label = label.astype(np.int8)
    return evaluate(user, label, logit), by_length(user, label, logit, length)


def by_length(
    user: Integers, label: Integers, logit: Floats, length: Integers
) -> dict[str, Metrics]:
    """Measure scored rows, each array of N, by ranges of history length.

    Returns:
        The metrics of each range that has rows, e.g. of "5-9".
    """
    parts = {}
    which: Index = np.searchsorted(LENGTHS, length, side="right") - 1
    for i, low in enumerate(LENGTHS):
        rows = which == i
        if rows.any():
            parts[_range(i, low)] = evaluate(user[rows], label[rows], logit[rows])
    return parts


def _range(i: int, low: int) -> str:
    if i + 1 == len(LENGTHS):
        return f"{low}+"
    high = LENGTHS[i + 1] - 1
    return f"{low}" if high == low else f"{low}-{high}"
