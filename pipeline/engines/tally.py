"""Whole numbers: how often each occurs, and the id of each."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.manifest import UNKNOWN_ID

Integers = npt.NDArray[np.integer[Any]]

# Up to here a table with a place for every number is small (32 MB of counts).
_SMALL = 1 << 22
_MERGE_ROWS = 1 << 22


class Tally:
    """Counts numbers block by block, in bounded memory; blocks may come from several threads.

    Small numbers have a counter each; others are kept as distinct values with counts. Negative
    numbers stand for missing values and are not counted.
    """

    def __init__(self) -> None:
        self._small = np.zeros(0, np.int64)
        self._large = _Frames()
        self._lock = threading.Lock()

    def add(self, values: Integers) -> None:
        """Count a block."""
        kept = values[values >= 0] if values.size and values.min() < 0 else values
        if not kept.size:
            return
        if int(kept.max()) >= max(_SMALL, 4 * len(kept)):
            self.merge(_counted(pl.DataFrame({"value": kept.astype(np.int64), "count": 1})))
            return
        counts = np.bincount(kept)
        with self._lock:
            if len(counts) > len(self._small):
                counts[: len(self._small)] += self._small
                self._small = counts
            else:
                self._small[: len(counts)] += counts

    def merge(self, counts: pl.DataFrame) -> None:
        """Add counts of distinct numbers: value and count."""
        self._large.add(counts)

    def counts(self) -> pl.DataFrame:
        """Columns value (int64) and count (int64), ascending by value."""
        small = np.flatnonzero(self._small)
        found = pl.DataFrame({"value": small, "count": self._small[small]})
        large = self._large.merged()
        return _counted(pl.concat([found, *large])) if large else found


class TextTally:
    """Counts texts block by block; blocks may come from several threads. Nulls are not counted."""

    def __init__(self) -> None:
        self._found = _Frames()

    def add(self, values: pl.Series) -> None:
        """Count a block."""
        found = pl.DataFrame({"value": values}).drop_nulls().group_by("value").len("count")
        self.merge(found.cast({"count": pl.Int64}))

    def merge(self, counts: pl.DataFrame) -> None:
        """Add counts of distinct texts: value and count."""
        self._found.add(counts)

    def counts(self) -> pl.DataFrame:
        """Columns value (text) and count (int64), ascending by value."""
        empty = pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})
        return pl.concat([empty, *self._found.merged()])


Words = Tally | TextTally
"""What counts values of either type."""


class _Frames:
    """Tables of value and count, merged when many rows have come."""

    def __init__(self) -> None:
        self._held: list[pl.DataFrame] = []
        self._most = _MERGE_ROWS
        self._lock = threading.Lock()

    def add(self, counts: pl.DataFrame) -> None:
        with self._lock:
            self._held.append(counts)
            if sum(some.height for some in self._held) > self._most:
                self._held = [_counted(pl.concat(self._held))]
                # So that what is known already is not counted over and over.
                self._most = _MERGE_ROWS + 2 * self._held[0].height

    def merged(self) -> list[pl.DataFrame]:
        """All in one, ascending by value; none where there is nothing."""
        return [_counted(pl.concat(self._held))] if self._held else []


def _counted(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by("value").agg(pl.col("count").sum().cast(pl.Int64)).sort("value")


class Ids:
    """The id of a number.

    Args:
        values: (values,) distinct numbers from 0.
        ids: (values,) the id of each, int32.
        default: the id of every other number.
    """

    def __init__(
        self, values: npt.NDArray[np.int64], ids: npt.NDArray[np.int32], default: int
    ) -> None:
        most = int(values.max(initial=-1))
        self.default = np.int32(default)
        self.table: npt.NDArray[np.int32] | None = None
        if most < max(_SMALL, 4 * len(values)):
            # The last place is that of every number without an id.
            self.table = np.full(most + 2, self.default, np.int32)
            self.table[values] = ids
            return
        order = np.argsort(values)
        self.values, self.ids = values[order], ids[order]

    def of(self, numbers: Integers) -> npt.NDArray[np.int32]:
        """(numbers,) the id of each; negative numbers have none."""
        if self.table is not None:
            # As unsigned numbers, negative ones are large too.
            found = numbers.view(numbers.dtype.str.replace("i", "u"))
            ids: npt.NDArray[np.int32] = self.table[np.minimum(found, len(self.table) - 1)]
            return ids
        at = np.minimum(np.searchsorted(self.values, numbers), len(self.values) - 1)
        return np.where(self.values[at] == numbers, self.ids[at], self.default)


def ids_of(words: pa.Table, default: int = UNKNOWN_ID) -> Ids:
    """The ids of a vocabulary of numbers."""
    return Ids(words["value"].to_numpy(), words["id"].to_numpy(), default)
