"""Scoring a split with a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from schemas.errors import ContractError
from trainer.data.batches import PLACE, Batch, Rows, batches_of
from trainer.data.shards import Shards
from trainer.data.split import batch_sizes
from trainer.metrics import Floats, Integers, Metrics, evaluate
from trainer.models.interest import InterestModel
from trainer.training.config import GPU_CELLS
from trainer.training.ranks import ALONE, Ranks
from trainer.training.threads import sharing

_BATCH_ROWS = 16_384
# History cells (rows x longest) scored at a time.
_CELLS = {"cpu": 4096, "cuda": GPU_CELLS}
# Ranges of history length, of all histories together, each from its least: the paper's Table 3, and
# no history at all.
LENGTHS = {"0": 0, "1-4": 1, "5-9": 5, "10-14": 10, "15-19": 15, "20+": 20}


class NoScores(ContractError):
    """A model's scores are no numbers."""


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
                    scored = torch.zeros(len(batch[columns[0]]))
                    if turn % ranks.world == ranks.rank:
                        there = {name: tensor.to(device) for name, tensor in batch.items()}
                        with torch.no_grad():
                            scored = model(there).float().cpu()
                        _require_numbers(scored, shards, split)
                    turn += 1
                    yield batch, scored
    finally:
        model.train(was_training)


def logits_of(model: InterestModel, rows: Rows, device: torch.device) -> Floats:
    """The logits of rows in memory, N, in their order; see `logits` for the errors.

    Args:
        model: on `device`, in the mode of measuring.
        device: where the model is.
    """
    count = len(rows)
    rows = replace(rows, scalars=rows.scalars | {PLACE: np.arange(count)})
    sizes = batch_sizes(count, _BATCH_ROWS)
    found = np.empty(count, np.float32)
    with sharing(), torch.no_grad():
        for groups in batches_of(rows, np.arange(count), sizes, _CELLS[device.type]):
            for group in groups:
                place = group.pop(PLACE).numpy()
                there = {name: tensor.to(device) for name, tensor in group.items()}
                found[place] = model(there).float().cpu().numpy()
    return found


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
) -> tuple[Metrics, dict[str, Metrics]]:
    """Score every row of a split, and measure it as a whole and by ranges of history length.

    With several ranks each one scores its part, and all get the metrics of the whole. See `logits`
    for arguments and errors, `by_length` for the ranges.
    """
    parts = [
        (batch["user"], batch["label"], shards.behaviours(batch), scored)
        for batch, scored in logits(
            model, shards, split, ("user", "label"), device=device, ranks=ranks
        )
    ]
    *stored, scores = (torch.cat(column) for column in zip(*parts, strict=True))
    ranks.add(scores)
    user, label, length, logit = (column.numpy() for column in (*stored, scores))
    label = label.astype(np.int8)
    return evaluate(user, label, logit), by_length(user, label, logit, length)


def by_length(
    user: Integers, label: Integers, logit: Floats, length: Integers
) -> dict[str, Metrics]:
    """Measure scored rows, each array of N, by ranges of history length: those that have rows."""
    which = np.searchsorted(list(LENGTHS.values()), length, side="right") - 1
    found = ((name, which == i) for i, name in enumerate(LENGTHS))
    return {n: evaluate(user[at], label[at], logit[at]) for n, at in found if at.any()}
