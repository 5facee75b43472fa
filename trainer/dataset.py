"""A split as a PyTorch data set, for those who have a `DataLoader`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch.utils.data import IterableDataset, get_worker_info

from trainer.rows import Batch

if TYPE_CHECKING:
    from trainer.data import Shards


class SplitDataset(IterableDataset[Batch]):
    """A split as an iterable data set; the workers of a DataLoader share the rows out.

    Give `DataLoader` `batch_size=None`: the batches are made here. Call `set_epoch` before each
    epoch to have it in another order.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        batch_size: int,
        shuffle_seed: int | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> None:
        self.shards, self.split, self.columns = shards, split, columns
        self.batch_size, self.shuffle_seed, self.epoch = batch_size, shuffle_seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        return self.shards.batches(
            self.split,
            batch_size=self.batch_size,
            shuffle_seed=self.shuffle_seed,
            epoch=self.epoch,
            columns=self.columns,
            rank=0 if worker is None else worker.id,
            world=1 if worker is None else worker.num_workers,
        )
