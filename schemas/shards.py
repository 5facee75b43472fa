"""The Arrow schema of a shard: the columns that the trainer, and everybody else, reads.

Legend: one row is one target; L is the data set's `max_len`.
"""

from __future__ import annotations

import pyarrow as pa

LAYOUTS = ("padded", "ragged")

HISTORY_COLUMNS: dict[str, pa.DataType] = {
    "position": pa.int16(),
    "interval_bin": pa.uint8(),
    "time": pa.int64(),
    "session": pa.int16(),
}


def history_type(value: pa.DataType, layout: str, max_len: int) -> pa.DataType:
    """fixed_size_list<value>[L] for `padded`, list<value> for `ragged`; elements are never null."""
    element = pa.field("element", value, nullable=False)
    return pa.list_(element, max_len) if layout == "padded" else pa.list_(element)


def shard_schema(fields: tuple[str, ...], layout: str, max_len: int) -> pa.Schema:
    """The schema of a shard whose behaviours and targets carry `fields`, e.g. (item, category)."""
    scalar = [
        ("row", pa.int64()),
        ("user", pa.int32()),
        *((f"target_{name}", pa.int32()) for name in fields),
        ("target_time", pa.int64()),
        ("label", pa.int8()),
        ("history_length", pa.int16()),
    ]
    sequence = [*((name, pa.int32()) for name in fields), *HISTORY_COLUMNS.items()]
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in scalar]
        + [
            pa.field(f"history_{name}", history_type(kind, layout, max_len), nullable=False)
            for name, kind in sequence
        ]
    )
