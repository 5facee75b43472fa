"""Vocabularies: values to ids, by SQL; 0 is padding, 1 unknown, values follow in sorted order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.engines.tally import Ids, ids_of
from pipeline.steps.sql import arrow, query
from schemas.manifest import FIRST_ID, UNKNOWN_ID


def count_values(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """How often each value occurs: columns value, count."""
    counted = frame.group_by(pl.col(column).alias("value")).agg(
        pl.len().cast(pl.Int64).alias("count")
    )
    # Polars' strings are views: through Arrow they are copied, and let go of the bucket's file.
    return pl.DataFrame(arrow(counted))


def vocabulary(counted: pl.DataFrame, min_count: int = 1) -> pa.Table:
    """value, id (int32), count of each value in summaries made by `count_values`.

    Args:
        counted: columns value and count; a value may stand several times.
        min_count: what occurs less often is left out.
    """
    if min_count > 1:
        counted = counted.filter(pl.col("count").sum().over("value") >= min_count)
    return query("vocabulary", {"counted": arrow(counted)}, first_id=FIRST_ID)


class Encoder:
    """Gives the values of a column their ids.

    Args:
        words: the vocabulary: value (int64 or text) and id.
        default: the id of what has none, as of null.
    """

    def __init__(self, words: pa.Table, default: int = UNKNOWN_ID) -> None:
        self.default = default
        self.words: Ids | pl.DataFrame
        if pa.types.is_integer(words.schema.field("value").type):
            self.words = ids_of(words, default)
        else:
            self.words = pl.DataFrame(words.select(["value", "id"]))

    def of(self, values: pl.Series) -> npt.NDArray[np.int32]:
        """(values,) the id of each."""
        if isinstance(self.words, Ids):
            return self.words.of(values.fill_null(-1).to_numpy())
        asked = pl.DataFrame({"value": values.cast(pl.String)})
        found = asked.join(self.words, on="value", how="left", maintain_order="left")["id"]
        ids: npt.NDArray[Any] = found.fill_null(self.default).to_numpy()
        return ids


def bucket_of(users: pl.Series, buckets: int) -> npt.NDArray[np.uint16]:
    """The bucket of each user, by its raw value."""
    if users.dtype.is_integer():
        mixed = (users.to_numpy().astype(np.uint64) * _GOLDEN) >> np.uint64(40)
        return (mixed % np.uint64(buckets)).astype(np.uint16)
    return (users.hash(seed=0) % buckets).to_numpy().astype(np.uint16)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
