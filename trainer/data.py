"""Reading a data set's shards as batches of tensors.

For the trainer, and for any PyTorch code: `Shards` needs the folder and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas import manifest
from schemas.errors import ContractError, UsageError
from trainer.arrow import SESSION, SESSION_LENGTH
from trainer.dataset import SplitDataset
from trainer.pieces import Piece, open_shard, pieces_of
from trainer.rows import HISTORY, LENGTH, Batch, Rows, batches_of, concat

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
        unsized = [f for f in self.manifest.fields if f not in self.manifest.vocabulary]
        if unsized:
            raise ContractError(
                "The manifest gives no size for a field.",
                where=self.out / manifest.NAME,
                expected=f"{', '.join(unsized)} under `vocabulary`",
                got=", ".join(self.manifest.vocabulary) or "nothing",
            )
        self.sessions = _sessions(self.manifest, self.out)
        self._kept: dict[tuple[str, tuple[str, ...]], Rows] = {}
        self._pieces: dict[tuple[str, tuple[str, ...]], list[Piece]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows."""
        return tuple(s for s in manifest.SPLITS if self.manifest.rows.get(s, 0))

    def schema(self, split: str) -> pa.Schema:
        """The Arrow schema of a split's shards.

        Raises:
            UsageError: the data set has no such split.
            InputError: a shard is missing.
        """
        return open_shard(self._paths(split)[0]).schema_arrow

    def split(self, split: str, columns: tuple[str, ...] | None = None) -> Rows:
        """A whole split as compact arrays, read once and kept.

        Args:
            split: `train`, `valid` or `test`.
            columns: the columns to read; all by default. `history_length` always comes along.
        """
        columns = self._columns(split, columns)
        key = (split, columns)
        if key not in self._kept:
            self._kept[key] = self._read(self._plan(split, columns), columns)
        return self._kept[key]

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
        """
        if batch_size < 1 or not 0 <= rank < world or (cells is not None and cells < 1):
            raise UsageError(
                "These numbers make no batches.",
                expected="batch_size >= 1, cells >= 1, 0 <= rank < world",
                got=f"batch_size {batch_size}, cells {cells}, rank {rank}, world {world}",
            )
        columns = self._columns(split, columns)
        rest: Rows | None = None
        for block, (rows, last) in enumerate(
            self._blocks(split, columns, shuffle_seed, epoch, rank, world)
        ):
            rows = rows if rest is None else concat([rest, rows])
            order = np.arange(len(rows))
            if shuffle_seed is not None:
                order = np.random.default_rng((shuffle_seed, epoch, block)).permutation(len(rows))
            if self._fits(split, columns):
                order = order[rank::world]
            if not last:
                # What fills no batch waits for the next block.
                whole = len(order) // batch_size * batch_size
                rest, order = rows.take(order[whole:]), order[:whole]
            yield from batches_of(rows, order, batch_size, cells)

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
        columns = self._columns(split, columns)
        for piece in self._plan(split, columns):
            yield partial(self._read, [piece], columns)

    def nbytes(self, split: str, columns: tuple[str, ...] | None = None) -> int:
        """Bytes that the split's columns need in memory, without padding."""
        return sum(p.nbytes for p in self._plan(split, self._columns(split, columns)))

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

    def _plan(self, split: str, columns: tuple[str, ...]) -> list[Piece]:
        key = (split, columns)
        if key not in self._pieces:
            pieces = [
                p for path in self._paths(split) for p in pieces_of(path, columns, self.sessions)
            ]
            rows, expected = sum(p.rows for p in pieces), self.manifest.rows.get(split, 0)
            if rows != expected:
                raise ContractError(
                    f"The shards of {split} hold another number of rows than the manifest says.",
                    where=self.out,
                    expected=f"{expected:,} rows",
                    got=f"{rows:,} rows",
                    do="make the data set again",
                )
            self._pieces[key] = pieces
        return self._pieces[key]

    def _fits(self, split: str, columns: tuple[str, ...]) -> bool:
        pieces = self._plan(split, columns)
        return sum(p.nbytes for p in pieces) <= self.memory_mb * 2**20

    def _blocks(
        self,
        split: str,
        columns: tuple[str, ...],
        seed: int | None,
        epoch: int,
        rank: int,
        world: int,
    ) -> Iterator[tuple[Rows, bool]]:
        """Rows to be shuffled together, and whether they are the last."""
        if self._fits(split, columns):
            yield self.split(split, columns), True
            return
        pieces = self._plan(split, columns)
        if seed is not None:
            order = np.random.default_rng((seed, epoch)).permutation(len(pieces))
            pieces = [pieces[i] for i in order]
        pieces = pieces[rank::world]
        held: list[Piece] = []
        blocks = [held]
        for piece in pieces:
            # A third: a block, its shuffled chunk and the next block's pieces exist at a time.
            if held and sum(p.nbytes for p in (*held, piece)) > self.memory_mb * 2**20 / 3:
                held = []
                blocks.append(held)
            held.append(piece)
        for i, block in enumerate(blocks if pieces else []):
            yield self._read(block, columns), i == len(blocks) - 1

    def _read(self, pieces: list[Piece], columns: tuple[str, ...]) -> Rows:
        limits, longest = self._limits(), self.manifest.max_len
        return concat(piece.read(columns, limits, longest, self.sessions) for piece in pieces)

    def _limits(self) -> dict[str, int]:
        sizes = self.manifest.vocabulary
        limits = dict(sizes)
        for name in self.manifest.fields:
            for prefix in ("target_", HISTORY, SESSION):
                limits[f"{prefix}{name}"] = sizes[name]
        limits[f"{HISTORY}position"] = self.manifest.max_len + 1
        limits[f"{HISTORY}interval_bin"] = self.manifest.bins.count + 1
        limits["label"] = 2
        return limits


def _sessions(made: manifest.Manifest, out: Path) -> tuple[int, int] | None:
    """M and K of the manifest's `sessions`, e.g. "5x10"; None for "none" or where it has none."""
    text = made.config.get("sessions")
    if text is None or text == "none":
        return None
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", str(text))
    if found is None:
        raise ContractError(
            "The manifest's sessions cannot be read.",
            where=out / manifest.NAME,
            expected='`sessions` of `config` like "5x10", or "none"',
            got=repr(text),
        )
    return int(found[1]), int(found[2])
