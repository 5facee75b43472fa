"""What else targets have by their own table: weights, numbers, lists, columns passed through.

They lie beside the ordered events, in the same order, as only a target's row needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.description import Table
from pipeline.engines.buckets import bucket_path, read_spilled, save_table
from pipeline.steps import lists
from pipeline.steps.lists import Lists
from pipeline.steps.sql import arrow
from pipeline.steps.vocabulary import Encoder
from schemas.arrays import Floats
from schemas.shards import KEPT_TYPES, kept_type

_LENGTH = "{}_length"


class Columns(NamedTuple):
    """A bucket's events of the targets' table, in order.

    Attributes:
        weight: (events,) that of each; None where there is none.
        numbers: column -> (events,) as in the file; NaN where there is none.
        lists: column -> (events,) ids.
        keep: (events,) the columns that are passed through.
    """

    weight: Floats | None
    numbers: dict[str, Floats]
    lists: dict[str, Lists]
    keep: pa.Table


def kinds(table: Table) -> list[str]:
    """What the files with them are called among a bucket's files, if there are any."""
    return [f"columns-{table.name}"] if table.more else []


def save(
    folder: Path, bucket: int, table: Table, frame: pl.DataFrame, words: Mapping[str, Encoder]
) -> None:
    """Write those of a bucket's events, which are in order."""
    for kind in kinds(table):
        found: dict[str, pa.Array | pa.ChunkedArray] = {}
        for name in (*table.numbers, *(["weight"] if table.weight else [])):
            found[name] = pa.array(frame[name].fill_null(np.nan).to_numpy())
        for name, most in table.lists.items():
            of = lists.encode(frame[name], words[name], most)
            found[name] = of.array(pa.list_(pa.int32(), most))
            found[_LENGTH.format(name)] = pa.array(of.length)
        kept = arrow(frame.select(table.keep))
        found |= {name: kept[name] for name in table.keep}
        save_table(bucket_path(folder / kind, bucket), pa.table(found))


def load(folder: Path, bucket: int, table: Table) -> Columns:
    """What `save` wrote; of a table without such columns nothing."""
    found = pa.table({})
    for kind in kinds(table):
        found = read_spilled(bucket_path(folder / kind, bucket)).combine_chunks()

    def flat(name: str) -> Floats:
        values: Floats = _whole(found[name]).to_numpy()
        return values

    of_lists = {}
    for name, most in table.lists.items():
        ids = _whole(found[name]).values.to_numpy().reshape(-1, most)
        of_lists[name] = Lists(ids, _whole(found[_LENGTH.format(name)]).to_numpy())
    columns = table.reader.columns
    types = {name: KEPT_TYPES[kept_type(columns[name])] for name in table.keep}
    return Columns(
        flat("weight") if table.weight else None,
        {name: flat(name) for name in table.numbers},
        of_lists,
        found.select(table.keep).cast(pa.schema(list(types.items()))),
    )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
