"""Reading a data set's shards as batches of tensors.

For the trainer, and for any PyTorch code: `Shards` needs the folder and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from schemas import digests, manifest
from schemas.errors import UsageError
from trainer.data.batches import PLACE, Batch, Index, Rows, batches_of, concat
from trainer.data.checks import check_manifest, check_schema
from trainer.data.facts import facts_of, session_columns_of
from trainer.data.row_groups import as_read, open_shard
from trainer.data.split import StoredSplit, batch_sizes, dealt_sizes, spread_sizes

__all__ = ["Batch", "Shards", "SplitDataset"]


class Shards:
    """A finished data set: its manifest, and its splits as batches.

    >>> from torch import nn
    >>> shards = Shards("data/amazon")
    >>> items = nn.Embedding(shards.manifest.vocabulary["item"], 64)
    >>> for batch in shards.batches("train", batch_size=32, shuffle_seed=1, epoch=0):
    ...     behaviours = items(batch["history_item"])  # float32, B x L x 64
    ...     labels = batch["label"]                    # float32, B
    >>> behaviours.shape[0] == len(labels)
    True

    A batch maps each column of the shards (see `schemas/shards.py`) to a tensor. Ids, positions,
    bins and lengths are int32, times and rows int64, labels float32. Histories are trimmed to
    the batch's longest and right-padded with 0 whatever the layout: hide the padding by
    `history_length`. A multi-valued feature is B x its most values, 0 from its `<name>_length` on.
    What the data set's `keep` passes through is read only where it is named, and text never.

    Attributes:
        facts: what else its manifest says that a training or a table depends on.

    Args:
        out: the folder that holds `manifest.json`.
        memory_mb: a split whose columns in use need more than this is streamed row group by row
            group instead of being kept; a shuffle then mixes as many rows as fit the bound.
        history: of a data set with several the one to read, as `history_` columns; those of the
            others are left out. None for all, by their own names.

    Raises:
        UsageError: there is no such history.
        InputError: there is no finished data set.
        ContractError: the manifest is not one.
    """

    def __init__(
        self, out: Path | str, *, memory_mb: float = 2048, history: str | None = None
    ) -> None:
        self.out = Path(out)
        self.memory_mb = memory_mb
        self.manifest = manifest.load(self.out)
        check_manifest(self.manifest, self.out)
        self.facts = facts_of(self.manifest, self.out, history)
        self._splits: dict[tuple[str, tuple[str, ...]], StoredSplit] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows."""
        return tuple(s for s in self.manifest.rows if self.manifest.rows[s])

    @cached_property
    def digests(self) -> dict[str, str]:
        """What the data set's numbers mean; see `schemas.digests`."""
        return digests.of_data(self.out, self.manifest)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that tell one target from another: the key's, else all of its fields'."""
        key, fields = self.facts.key, self.manifest.fields
        if key in fields:
            return (f"target_{key}",)
        if key is not None and key in self.schema(self.splits[0]).names:
            return (key,)
        return tuple(f"target_{name}" for name in fields)

    def schema(self, split: str) -> pa.Schema:
        """The Arrow schema of a split's shards.

        Raises:
            UsageError: the data set has no such split.
            InputError: a shard is missing.
            ContractError: the manifest declares other histories than it holds.
        """
        path, facts = self._paths(split)[0], self.facts
        stored = [f for f in open_shard(path).schema_arrow if f.name not in facts.unread]
        schema = as_read(pa.schema(stored), facts.stored)
        check_schema(self.manifest, self.facts.histories, schema, path)
        return schema

    def split(self, split: str, columns: tuple[str, ...] | None = None) -> Rows:
        """A whole split's columns, all by default, as compact arrays, read once and kept."""
        return self._stored(split, columns).whole()

    def batches(
        self,
        split: str,
        *,
        batch_size: int,
        shuffle_seed: int | None = None,
        epoch: int = 0,
        columns: tuple[str, ...] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """Every row of a split once, as batches; the last batch may be shorter.

        Args:
            split: `train`, `valid` or `test`.
            shuffle_seed: None keeps the stored order; the order is a function of
                (shuffle_seed, epoch), and of the memory bound when the split is streamed.
            epoch: gives each epoch its own order.
            columns: the columns to read; all by default.
            rank: which of the `world` disjoint parts to yield. Streamed parts are whole row
                groups, so their sizes differ.

        Raises:
            UsageError: no such split or column, or numbers that make no batch.
            InputError: a shard is missing or damaged.
            ContractError: a shard breaks its contract.
        """
        how: dict[str, Any] = {
            "shuffle_seed": shuffle_seed,
            "epoch": epoch,
            "rank": rank,
            "world": world,
        }
        for groups in self.grouped_batches(
            split, batch_size=batch_size, cells=None, columns=columns, **how
        ):
            yield groups[0]

    def grouped_batches(
        self,
        split: str,
        *,
        batch_size: int,
        cells: int | None,
        shuffle_seed: int | None = None,
        epoch: int = 0,
        columns: tuple[str, ...] | None = None,
        rank: int = 0,
        world: int = 1,
        together: bool = False,
    ) -> Iterator[list[Batch]]:
        """As `batches`, but each batch as a list of groups of similar history length.

        Adding up the groups' gradients gives the batch's own, with far less padding. `cells` is the
        most history cells (rows x longest) of a group; None: one group. With `together` the ranks
        make up each batch between them: every rank yields its part of every batch, an empty list
        where it has none, so that all yield equally many. In memory the batches are those of
        `world` 1; streamed, their sizes differ a little.
        """
        if batch_size < 1 or not 0 <= rank < world or (cells is not None and cells < 1):
            raise UsageError(
                "These numbers make no batches.",
                expected="batch_size >= 1, cells >= 1, 0 <= rank < world",
                got=f"batch_size {batch_size}, cells {cells}, rank {rank}, world {world}",
            )
        stored = self._stored(split, columns)
        sizes, blocks = _share(stored, batch_size, shuffle_seed, epoch, rank, world, together)
        rest: Rows | None = None
        for block, (rows, last) in enumerate(blocks):
            rows = rows if rest is None else concat([rest, rows])
            order = np.arange(len(rows))
            if shuffle_seed is not None:
                order = np.random.default_rng((shuffle_seed, epoch, block)).permutation(len(rows))
            if stored.fits:
                order = order[rank::world]
            ends = np.cumsum(sizes)
            here = len(sizes) if last else int(np.searchsorted(ends, len(order), side="right"))
            if not last:
                # What fills no batch waits for the next block.
                whole = int(sizes[:here].sum())
                rest, order = rows.take(order[whole:]), order[:whole]
            yield from batches_of(rows, order, sizes[:here], cells)
            sizes = sizes[here:]
        yield from ([] for _ in sizes)  # of a rank without any row group

    def dataset(
        self,
        split: str,
        *,
        batch_size: int,
        shuffle_seed: int | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> SplitDataset:
        """The split for `torch.utils.data.DataLoader(..., batch_size=None)`."""
        return SplitDataset(self, split, batch_size, shuffle_seed, columns)

    def behaviours(self, batch: Batch) -> Tensor:
        """How many behaviours each row of a batch has, in all histories that are read, B."""
        first, *others = (batch[f"{called}_length"] for called in self.facts.histories)
        return sum(others, first)

    def nbytes(self, split: str, columns: tuple[str, ...] | None = None) -> int:
        """Bytes that the split's columns need in memory, without padding."""
        return self._stored(split, columns).nbytes

    def _paths(self, split: str) -> list[Path]:
        paths = self.manifest.shard_paths(self.out, split)
        if not paths:
            raise UsageError(
                f"The data set has no split {split!r}.",
                where=self.out,
                expected=f"one of {', '.join(self.splits)}",
                got=split,
            )
        return paths

    def _columns(self, split: str, columns: tuple[str, ...] | None) -> tuple[str, ...]:
        names = [*self.schema(split).names, PLACE]
        if columns is None:
            columns = tuple(n for n in names if n not in (*self.manifest.keep, PLACE))
        histories = self.facts.histories
        lengths = [name for name in self.manifest.lists if name in columns]
        wanted = [*columns, *(f"{name}_length" for name in (*lengths, *histories))]
        for called, one in histories.items():
            of_sessions = session_columns_of(called, one)
            wanted += of_sessions[:1] if {*of_sessions} & {*columns} else []
        missing = [c for c in wanted if c not in names]
        if missing:
            raise UsageError(
                f"The shards have no column {', '.join(missing)}.",
                where=self.out,
                expected=f"columns among {', '.join(names[:-1])}",
                got=", ".join(missing),
            )
        return tuple(n for n in names if n in wanted)

    def _stored(self, split: str, columns: tuple[str, ...] | None) -> StoredSplit:
        columns = self._columns(split, columns)
        key = (split, columns)
        if key not in self._splits:
            self._splits[key] = StoredSplit(
                self.manifest, self.out, split, columns, self.facts, self.memory_mb
            )
        return self._splits[key]


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


def _share(
    stored: StoredSplit,
    batch_size: int,
    seed: int | None,
    epoch: int,
    rank: int,
    world: int,
    together: bool,
) -> tuple[Index, Iterator[tuple[Rows, bool]]]:
    """The rows of each of a rank's batches, and the blocks that they come from."""
    every = sum(piece.rows for piece in stored.pieces)
    if stored.fits:
        blocks = iter([(stored.whole(), True)])
        if together:
            return dealt_sizes(every, batch_size, rank, world), blocks
        return batch_sizes(len(range(rank, every, world)), batch_size), blocks
    share = stored.shares(seed, epoch, world)[rank]
    mine = sum(piece.rows for piece in share)
    if together and world > 1:
        sizes = spread_sizes(mine, -(-every // batch_size))
    else:
        sizes = batch_sizes(mine, batch_size)
    return sizes, stored.blocks(share)
