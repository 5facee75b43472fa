"""`vocabulary/<field>.parquet` as it is read: value, id, count, one row a value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import ContractError, InputError
from schemas.manifest import FIRST_ID

VALUES = (pa.int64(), pa.string(), pa.large_string())
"""Types of a value."""
CONTRACT = (
    "value (int64 or text), id (int32: 2, 3, ...) and count (int64), no value twice, no nulls"
)


def read(path: Path) -> pa.Table:
    """Read a vocabulary and hold it to its `CONTRACT`.

    Raises:
        InputError: the file is missing or damaged.
        ContractError: it holds something else.
    """
    try:
        table = pq.read_table(path, partitioning=None)
        table.validate(full=True)
    except FileNotFoundError:
        raise InputError(
            "A vocabulary is missing.",
            where=path,
            expected="a Parquet file",
            got="no such file",
            do="make the data set again",
        ) from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(
            "A vocabulary cannot be read.",
            where=path,
            expected="a Parquet file",
            got=" ".join(str(error).split())[:200],
            do="make the data set again",
        ) from error
    if broken := breach(table):
        raise ContractError(
            "A vocabulary breaks its contract.",
            where=path,
            expected=CONTRACT,
            got=broken,
            do="make the data set again",
        )
    return table


def breach(table: pa.Table) -> str | None:
    """What of `CONTRACT` a table breaks, None if nothing."""
    types = table.schema.types
    if table.column_names != ["value", "id", "count"]:
        return f"the columns {', '.join(table.column_names)!a}"[:200]
    if types[0] not in VALUES or types[1:] != [pa.int32(), pa.int64()]:
        return f"the types {', '.join(map(str, types))}"[:200]
    if any(column.null_count for column in table.columns):
        return "nulls"
    ids = table["id"].to_numpy()
    if len(wrong := np.flatnonzero(ids != np.arange(FIRST_ID, FIRST_ID + len(ids)))):
        return f"id {ids[wrong[0]]} in row {wrong[0]}"
    values = table["value"].combine_chunks()
    # In order, as they are written, they need no hash table.
    rise = pc.all(pc.greater(values[1:], values[:-1])).as_py()
    if rise is False and pc.count_distinct(values).as_py() != len(ids):
        return "a value that stands twice"
    return None
