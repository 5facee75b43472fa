"""The Arrow schema of a shard: the columns that the trainer, and everybody else, reads.

Legend: one row is one target; L is the data set's `max_len`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

LAYOUTS = ("padded", "ragged")
# What the types below can count: interval bins, and behaviours of a row, in sessions as well.
MOST_BINS, MOST_BEHAVIOURS = 255, 32_767

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


def shard_schema(
    fields: tuple[str, ...],
    layout: str,
    max_len: int,
    *,
    features: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    sessions: tuple[int, int] | None = None,
) -> pa.Schema:
    """The schema of a shard.

    Args:
        fields: what behaviours and targets carry, e.g. (item, category).
        layout: one of `LAYOUTS`.
        max_len: L.
        features: other id columns of a row, e.g. the user's profile.
        numbers: float columns of a row.
        sessions: DSIN's (M, K), with columns of their own: `session_<field>` holds M sessions of K
            behaviours each, the latest session first, its oldest behaviour first; ragged, just
            the behaviours, and `session_length` tells sessions apart.
    """
    scalar = [
        ("row", pa.int64()),
        ("user", pa.int32()),
        *((f"target_{name}", pa.int32()) for name in fields),
        ("target_time", pa.int64()),
        ("label", pa.int8()),
        *((name, pa.int32()) for name in features),
        *((name, pa.float32()) for name in numbers),
        ("history_length", pa.int16()),
    ]
    sequence = [*((name, pa.int32()) for name in fields), *HISTORY_COLUMNS.items()]
    lists = [(f"history_{name}", history_type(kind, layout, max_len)) for name, kind in sequence]
    if sessions is not None:
        most, length = sessions
        cells = history_type(pa.int32(), layout, most * length)
        lists += [(f"session_{name}", cells) for name in fields]
        lists.append(("session_length", history_type(pa.int16(), layout, most)))
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in (*scalar, *lists)])


def numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    """NumPy's type for a number's Arrow type; Arrow's own answer needs pandas in some versions."""
    kind_of: np.dtype[Any] = pa.array([], kind).to_numpy(zero_copy_only=False).dtype
    return kind_of
