"""The Arrow schema of a shard: the columns that the trainer, and everybody else, reads.

Legend: one row is one target; L is the data set's `max_len`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.bounds import HISTORY

# Of times, and so of intervals and edges: how many there are in a second.
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
# What a column may be that is passed through.
KEPT_TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "string": pa.string(),
    "float64": pa.float64(),
}
_KEPT = {
    "int64": pa.types.is_int64,
    "float64": pa.types.is_float64,
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
}

# Of every row: what stands before its fields, and what follows them.
_FIRST: dict[str, pa.DataType] = {"row": pa.int64(), "user": pa.int32()}
_THEN: dict[str, pa.DataType] = {"target_time": pa.int64(), "label": pa.int8()}
WEIGHT = "weight"

HISTORY_COLUMNS: dict[str, pa.DataType] = {
    "position": pa.int16(),
    "interval_bin": pa.uint8(),
    "time": pa.int64(),
    "session": pa.int16(),
}


TAKEN = frozenset({*_FIRST, *_THEN, WEIGHT, *HISTORY_COLUMNS, "length"})
"""Names of columns that every data set has, or histories after their own name: no field's."""


def history_type(value: pa.DataType, layout: str, max_len: int) -> pa.DataType:
    """fixed_size_list<value>[L] for `padded`, list<value> for `ragged`; elements are never null."""
    element = pa.field("element", value, nullable=False)
    return pa.list_(element, max_len) if layout == "padded" else pa.list_(element)


@dataclass(frozen=True)
class Shape:
    """What the histories of one name look like.

    Attributes:
        fields: what behaviours carry, e.g. (item, category).
        max_len: L.
        sessions: DSIN's (M, K), with columns of their own: `session_<field>` holds M sessions of K
            behaviours each, the latest session first, its oldest behaviour first; ragged, just
            the behaviours, and `session_length` tells sessions apart.
    """

    fields: tuple[str, ...]
    max_len: int
    sessions: tuple[int, int] | None = None


def schema_of(
    fields: tuple[str, ...],
    histories: Mapping[str, Shape],
    layout: str,
    *,
    weight: bool = False,
    features: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
    lists: Mapping[str, int] | None = None,
    keep: Mapping[str, str] | None = None,
) -> pa.Schema:
    """The schema of a shard.

    Args:
        fields: what targets carry, e.g. (item, category).
        layout: one of `LAYOUTS`.
        features: other id columns of a row, e.g. the user's profile.
        numbers: float columns of a row.
        lists: multi-valued features of a row, with the most values that one has: ids, and
            `<name>_length`, how many they are.
        keep: columns that are passed through, with their types, keys of `KEPT_TYPES`: the only ones
            that may hold nulls.
    """
    scalar: list[tuple[str, pa.DataType]] = [
        *_FIRST.items(),
        *((f"target_{name}", pa.int32()) for name in fields),
        *_THEN.items(),
        *([(WEIGHT, pa.float32())] if weight else []),
        *((name, pa.int32()) for name in features),
        *((name, pa.float32()) for name in numbers),
    ]
    for name, most in (lists or {}).items():
        scalar += [(name, history_type(pa.int32(), layout, most)), (f"{name}_length", pa.int16())]
    kept = [pa.field(name, KEPT_TYPES[kind]) for name, kind in (keep or {}).items()]
    cells: list[tuple[str, pa.DataType]] = [(f"{name}_length", pa.int16()) for name in histories]
    for prefix, shape in histories.items():
        columns = [*((name, pa.int32()) for name in shape.fields), *HISTORY_COLUMNS.items()]
        cells += [
            (f"{prefix}_{name}", history_type(kind, layout, shape.max_len))
            for name, kind in columns
        ]
        if shape.sessions is not None:
            most, length = shape.sessions
            of_sessions = history_type(pa.int32(), layout, most * length)
            before = session_prefix(prefix)
            cells += [(f"{before}_{name}", of_sessions) for name in shape.fields]
            cells.append((f"{before}_length", history_type(pa.int16(), layout, most)))
    never_null = [
        [pa.field(name, kind, nullable=False) for name, kind in some] for some in (scalar, cells)
    ]
    return pa.schema([*never_null[0], *kept, *never_null[1]])


def kept_type(kind: pa.DataType) -> str:
    """What the type of a column that is passed through is called, a key of `KEPT_TYPES`.

    Raises:
        ValueError: no such column is passed through.
    """
    for name, is_it in _KEPT.items():
        if is_it(kind):
            return name
    raise ValueError(f"No column of {kind} is passed through.")


def session_prefix(history: str) -> str:
    """What the names of the columns begin with that hold the sessions of a history."""
    return "session" if history == HISTORY else f"{history}_session"


def numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    """NumPy's type for a number's Arrow type; Arrow's own answer needs pandas in some versions."""
    kind_of: np.dtype[Any] = pa.array([], kind).to_numpy(zero_copy_only=False).dtype
    return kind_of
