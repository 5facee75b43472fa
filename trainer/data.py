"""Reading a data set's shards as batches of tensors.

For the trainer, and for any PyTorch code: `Shards` needs the folder and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas import digests, manifest
from schemas.errors import UsageError
from trainer.arrow import SESSION, SESSION_LENGTH
from trainer.dataset import SplitDataset
from trainer.declared import check_manifest, check_schema
from trainer.pieces import open_shard
from trainer.rows import LENGTH, Batch, Index, Rows, batches_of, concat
from trainer.stored import StoredSplit, batch_sizes, dealt_sizes, sessions_of, spread_sizes

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
    `history_length`.

    Attributes:
        sessions: (M, K) of the `session_` columns, M sessions of K behaviours; None without them.

    Args:
        out: the folder that holds `manifest.json`.
        memory_mb: a split whose columns in use need more than this is streamed row group by row
            group instead of being kept; a shuffle then mixes as many rows as fit the bound.

    Raises:
        InputError: there is no finished data set.
        ContractError: the manifest is not one.
    """

    def __init__(self, out: Path | str, *, memory_mb: float = 2048) -> None:
        self.out = Path(out)
        self.memory_mb = memory_mb
        self.manifest = manifest.load(self.out)
        check_manifest(self.manifest, self.out)
        self.sessions = sessions_of(self.manifest, self.out)
        self._splits: dict[tuple[str, tuple[str, ...]], StoredSplit] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows."""
        return tuple(s for s in manifest.SPLITS if self.manifest.rows.get(s, 0))

    @cached_property
    def digests(self) -> dict[str, str]:
        """What the data set's numbers mean; see `schemas.digests`.

        Raises:
            InputError: a vocabulary is missing or damaged.
            ContractError: it breaks its contract, or is not the one of the manifest.
        """
        return digests.of_data(self.out, self.manifest)

    def schema(self, split: str) -> pa.Schema:
        """The Arrow schema of a split's shards.

        Raises:
            UsageError: the data set has no such split.
            InputError: a shard is missing.
            ContractError: the manifest declares other histories than it holds.
        """
        path = self._paths(split)[0]
        schema = open_shard(path).schema_arrow
        check_schema(self.manifest, schema, path)
        return schema

    def split(self, split: str, columns: tuple[str, ...] | None = None) -> Rows:
        """A whole split as compact arrays, read once and kept.

        Args:
            split: `train`, `valid` or `test`.
            columns: the columns to read; all by default. `history_length` always comes along.
        """
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
            batch_size: rows per batch.
            shuffle_seed: None keeps the stored order; the order is a function of
                (shuffle_seed, epoch), and of the memory bound when the split is streamed.
            epoch: gives each epoch its own order.
            columns: the columns to read; all by default.
            rank: which of the `world` disjoint parts to yield. Streamed parts are whole row
                groups, so their sizes differ.
            world: number of parts.

        Raises:
            UsageError: no such split or column, or numbers that make no batch.
            InputError: a shard is missing or damaged.
            ContractError: a shard breaks its contract.
        """
        for groups in self.grouped_batches(
            split,
            batch_size=batch_size,
            cells=None,
            shuffle_seed=shuffle_seed,
            epoch=epoch,
            columns=columns,
            rank=rank,
            world=world,
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

        Adding up the groups' gradients gives the batch's own, with far less padding.

        Args:
            split: as in `batches`.
            batch_size: rows over all groups of a batch.
            cells: the most history cells (rows x longest) of a group; None: one group.
            shuffle_seed: as in `batches`.
            epoch: as in `batches`.
            columns: as in `batches`.
            rank: as in `batches`.
            world: as in `batches`.
            together: the ranks make up each batch between them: every rank yields its part of
                every batch, an empty list where it has none, so that all yield equally many. In
                memory the batches are those of `world` 1; streamed, their sizes differ a little.
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

    def row_groups(
        self, split: str, columns: tuple[str, ...] | None = None
    ) -> Iterator[Callable[[], Rows]]:
        """What reads each row group of a split, in the stored order; callable in any thread.

        Args:
            split: as in `batches`.
            columns: as in `split`.
        """
        stored = self._stored(split, columns)
        for piece in stored.pieces:
            yield partial(stored.read, [piece])

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
        names = self.schema(split).names
        wanted = tuple(names) if columns is None else (*columns, LENGTH)
        if any(c.startswith(SESSION) for c in wanted):
            wanted = (*wanted, SESSION_LENGTH)
        missing = [c for c in wanted if c not in names]
        if missing:
            raise UsageError(
                f"The shards have no column {', '.join(missing)}.",
                where=self.out,
                expected=f"columns among {', '.join(names)}",
                got=", ".join(missing),
            )
        return tuple(n for n in names if n in wanted)

    def _stored(self, split: str, columns: tuple[str, ...] | None) -> StoredSplit:
        columns = self._columns(split, columns)
        key = (split, columns)
        if key not in self._splits:
            self._splits[key] = StoredSplit(self.manifest, self.out, split, columns, self.memory_mb)
        return self._splits[key]


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
