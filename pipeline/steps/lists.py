"""Columns of several values: which of them are stored, their counts, and their ids.

Of a row's values the first `most` are stored, in their order. A value that stands in a row again is
the same value, so it is stored once, and a missing one is none. What is not stored is in no
vocabulary either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.steps.sql import arrow
from pipeline.steps.vocabulary import Encoder
from schemas.arrays import Bools, Int32s


class Lists(NamedTuple):
    """Lists of ids.

    Attributes:
        ids: (rows, most) ids, from the left; 0 behind them.
        length: (rows,) how many each row has.
    """

    ids: Int32s
    length: npt.NDArray[np.int16]

    def take(self, rows: Any) -> Lists:
        """The lists of some rows."""
        return Lists(self.ids[rows], self.length[rows])

    def with_empty(self) -> Lists:
        """These, and an empty one behind them."""
        return Lists(np.pad(self.ids, ((0, 1), (0, 0))), np.append(self.length, np.int16(0)))

    @property
    def real(self) -> Bools:
        """(rows, most) which cells hold an id."""
        real: Bools = np.arange(self.ids.shape[1]) < self.length[:, None]
        return real

    def array(self, kind: pa.DataType) -> pa.Array:
        """The lists as Arrow has them, of a fixed size or plain."""
        if pa.types.is_fixed_size_list(kind):
            return pa.FixedSizeListArray.from_arrays(pa.array(self.ids.ravel()), type=kind)
        ends = np.cumsum(self.length, dtype=np.int32)
        offsets = pa.array(np.append(np.int32(0), ends))
        return pa.ListArray.from_arrays(offsets, pa.array(self.ids[self.real]), type=kind)


def cut(rows: pl.DataFrame, lists: Mapping[str, int]) -> pl.DataFrame:
    """Rows with just those values of their lists that are stored, and no null.

    Args:
        lists: column -> how many values of a row are stored.
    """
    return rows.with_columns(
        pl.col(name)
        .list.drop_nulls()
        .list.unique(maintain_order=True)
        .list.head(most)
        .fill_null([])
        for name, most in lists.items()
    )


def count_values(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """How often each value occurs in lists that are `cut`: columns value, count."""
    values = rows.select(pl.col(column).alias("value")).explode("value").drop_nulls("value")
    counted = values.group_by("value").agg(pl.len().cast(pl.Int64).alias("count"))
    return pl.DataFrame(arrow(counted))  # as `vocabulary.count_values` lets go of the file


def encode(values: pl.Series, words: Encoder, most: int) -> Lists:
    """The ids of lists that are `cut` to `most` values."""
    array = values.to_arrow(compat_level=pl.CompatLevel.oldest())
    length = np.diff(array.offsets.to_numpy())
    ids = np.zeros((len(values), most), np.int32)
    found = Lists(ids, length.astype(np.int16))
    ids[found.real] = words.of(pl.Series(array.flatten()))
    return found
