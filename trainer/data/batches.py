"""Rows of a split in memory, without padding.

Legend: N rows (targets), T behaviours over all rows, L the longest history of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

# What the columns of the only history begin with, or of the one that is read.
LENGTH, HISTORY = "history_length", "history_"
SESSION_LENGTH, SESSION = "session_length", "session_"
WEIGHT = "weight"
# No column of the shards, but one of a batch that asks for it: where in its split a row stands.
PLACE = "(place)"

Batch = dict[str, torch.Tensor]
Array = NDArray[np.generic]
Index = NDArray[np.int64]

# What each stored type becomes in a batch: embeddings take int32, losses take float32.
_TENSOR_TYPES = {"int8": "int32", "int16": "int32", "uint8": "int32", "bool": "int32"}


@dataclass(frozen=True)
class Runs:
    """One history of some rows: each row's is a run in one flat array per column.

    Attributes:
        columns: column -> flat array of T.
        lengths: behaviours of each row, N.
        starts: where each row's behaviours begin in the flat arrays, N.
    """

    columns: dict[str, Array]
    lengths: Index
    starts: Index

    @classmethod
    def of(cls, columns: dict[str, Array], lengths: Index) -> Runs:
        """Runs that lie one after another."""
        return cls(columns, lengths, np.cumsum(lengths) - lengths)

    def take(self, rows: Index) -> Runs:
        """The given rows' runs, laid out in the given order."""
        lengths = self.lengths[rows]
        starts = np.cumsum(lengths) - lengths
        source = np.repeat(self.starts[rows] - starts, lengths)
        source += np.arange(len(source))
        columns = {name: a.take(source) for name, a in self.columns.items()}
        return Runs(columns, lengths, starts)

    def padded(self, lo: int, hi: int) -> Iterator[tuple[str, Array]]:
        """The columns of rows lo..hi, right-padded with 0 to the longest of them."""
        lengths = self.lengths[lo:hi]
        # At least one column, so that a batch of empty histories has the usual shapes.
        width = max(1, int(lengths.max(initial=0)))
        mask = np.arange(width) < lengths[:, None]
        first = int(self.starts[lo])
        last = int(self.starts[hi - 1] + self.lengths[hi - 1])
        for name, a in self.columns.items():
            cells = np.zeros(mask.shape, _TENSOR_TYPES.get(a.dtype.name, a.dtype.name))
            cells[mask] = a[first:last]
            yield name, cells


@dataclass(frozen=True)
class Rows:
    """Compact arrays of some rows.

    Attributes:
        scalars: column -> array of N.
        matrices: column of lists other than histories -> array of N x K. Ragged sessions and
            multi-valued features are read into these as the padded layout stores them.
        histories: each history's behaviours, by its name; at least one.
    """

    scalars: dict[str, Array]
    matrices: dict[str, Array]
    histories: dict[str, Runs]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> Index:
        """Behaviours of each row in all histories, N."""
        first, *others = (runs.lengths for runs in self.histories.values())
        return sum(others, first)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        tables = (self.scalars, self.matrices, *(r.columns for r in self.histories.values()))
        arrays = sum(a.nbytes for table in tables for a in table.values())
        return arrays + 16 * len(self) * len(self.histories)

    def take(self, rows: Index) -> Rows:
        """The given rows, in the given order, with their behaviours laid out in that order."""
        return Rows(
            {name: a.take(rows) for name, a in self.scalars.items()},
            {name: a.take(rows, axis=0) for name, a in self.matrices.items()},
            {name: runs.take(rows) for name, runs in self.histories.items()},
        )

    def batch(self, lo: int, hi: int) -> Batch:
        """Rows lo..hi as tensors, histories right-padded with 0 to the longest of them.

        The rows' behaviours must lie one after another, as `take` and `RowGroup.read` leave them.
        Tensors may share memory with these rows.
        """
        out: Batch = {}
        for table in (self.scalars, self.matrices):
            for name, a in table.items():
                kind = "float32" if name == "label" else _TENSOR_TYPES.get(a.dtype.name)
                out[name] = torch.from_numpy(a[lo:hi].astype(kind or a.dtype, copy=False))
        for runs in self.histories.values():
            out |= {name: torch.from_numpy(cells) for name, cells in runs.padded(lo, hi)}
        return out


def concat(parts: Iterable[Rows]) -> Rows:
    """The rows of all parts, one part after another."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]

    def joined(tables: list[dict[str, Array]]) -> dict[str, Array]:
        # Each column's pieces are dropped as soon as they are joined, to keep the peak low.
        return {name: np.concatenate([t.pop(name) for t in tables]) for name in list(tables[0])}

    def one(name: str) -> Runs:
        runs = [p.histories[name] for p in parts]
        columns = joined([dict(r.columns) for r in runs])
        return Runs.of(columns, np.concatenate([r.lengths for r in runs]))

    return Rows(
        joined([dict(p.scalars) for p in parts]),
        joined([dict(p.matrices) for p in parts]),
        {name: one(name) for name in parts[0].histories},
    )


def batches_of(rows: Rows, order: Index, sizes: Index, cells: int | None) -> Iterator[list[Batch]]:
    """Cut rows into batches, each a list of groups of similar history length.

    Rows are gathered a chunk of many batches at a time, so that a small batch costs little more
    than its own padding.

    Args:
        order: indices into `rows`.
        sizes: rows of each batch, in all as many as `order` has. A batch of none is an empty list.
        cells: the most history cells (rows x longest, of all histories together) that a group may
            have, at least one row; None leaves each batch whole and in order.
    """
    # Of several histories the longest says best how much is padded.
    longest = np.maximum.reduce([runs.lengths for runs in rows.histories.values()])
    mean = max(1.0, float(rows.lengths.mean())) if len(rows) else 1.0
    largest = max(1, int(sizes.max(initial=1)))
    batches = max(1, int(min(65_536, 4_000_000 / mean)) // largest)
    lo = 0
    for first in range(0, len(sizes), batches):
        held = sizes[first : first + batches]
        bounds = np.r_[0, np.cumsum(held)]
        chosen = order[lo : lo + bounds[-1]]
        lo += len(chosen)
        if cells is not None:
            of_batch = np.repeat(np.arange(len(held)), held)
            chosen = chosen[np.lexsort((longest[chosen], of_batch))]
        chunk = rows.take(chosen)
        for start, stop in pairwise(bounds.tolist()):
            cuts = [start, stop] if stop > start else [start]
            if cells is not None:
                cuts = _group_cuts(chunk, start, stop, cells)
            yield [chunk.batch(a, b) for a, b in pairwise(cuts)]


def _group_cuts(rows: Rows, start: int, stop: int, cells: int) -> list[int]:
    """Where to cut start..stop so that each piece fits `cells`."""
    lengths = [runs.lengths for runs in rows.histories.values()]
    cuts = [start]
    while cuts[-1] < stop:
        lo = cuts[-1]
        longest = sum(np.maximum.accumulate(each[lo:stop]) for each in lengths)
        area = np.arange(1, stop - lo + 1) * longest
        cuts.append(lo + max(1, int(np.searchsorted(area, cells, side="right"))))
    return cuts
