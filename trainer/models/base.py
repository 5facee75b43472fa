"""What every model is, to those that train, measure and export it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from trainer.data.batches import Batch
from trainer.data.inputs import Inputs
from trainer.models.reader import Reader

TARGET = "target_"


class InterestModel(nn.Module, ABC):
    """Scores a target for a user by the user's histories and the other features.

    Attributes:
        inputs: the columns and sizes that it was built for.
        readers: by the histories' names, what reads the histories' columns.
        columns: the shards' columns that `forward` reads.
        auxiliary: a loss beside the cross-entropy; None for none.
        behaviours: what such a loss draws from, P behaviours by the ids of their fields,
            P x fields; a training sets it.
    """

    inputs: Inputs
    readers: dict[str, Reader]
    columns: tuple[str, ...]
    auxiliary: nn.Module | None
    behaviours: Tensor | None

    @abstractmethod
    def interest(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the user's interests, B x U, and the embedded target, B x D."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Score a batch.

        Args:
            batch: the columns named in `columns`, as `trainer.data.shards` makes them. In a
                request, where all targets share one history, its columns have 1 row.

        Returns:
            Logits of a positive label, B.
        """

    def with_auxiliary(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Score a batch, and give the auxiliary loss of each row: both B.

        None where the model has no such loss.
        """
        return self(batch), None
