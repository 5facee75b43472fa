"""Rows from Arrow: what a shard holds is checked here, and its padding stripped.

Legend: N rows, T behaviours over all rows, M kept sessions of at most K behaviours each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import ContractError
from trainer.rows import HISTORY, LENGTH, Array, Index, Rows

SESSION = "session_"
SESSION_LENGTH = "session_length"


def from_arrow(
    table: pa.RecordBatch,
    limits: dict[str, int],
    max_len: int,
    where: Path | str,
    sessions: tuple[int, int] | None = None,
) -> Rows:
    """Check one Arrow batch of a shard, padded or ragged, and strip its padding.

    Args:
        table: columns of a shard, `history_length` among them, and `session_length` where any
            `session_` column is.
        limits: column -> the smallest integer that is too large for it (ids, positions, bins).
        max_len: the manifest's `max_len`.
        where: the shard, for messages.
        sessions: M sessions of K behaviours, which the `session_` columns hold.

    Raises:
        ContractError: a null, a value outside its vocabulary, lists that do not match
            `history_length` or `session_length`, or a type that no batch can hold.
    """
    lengths: Index = _numpy(table.column(LENGTH), LENGTH, where).astype(np.int64)
    _check_range(lengths, LENGTH, max_len + 1, where)
    scalars: dict[str, Array] = {}
    matrices: dict[str, Array] = {}
    histories: dict[str, Array] = {}
    kept = None
    if sessions is not None and SESSION_LENGTH in table.schema.names:
        kept = _Sessions.read(table.column(SESSION_LENGTH), sessions, where)
    for name, column in zip(table.schema.names, table.columns, strict=True):
        kind = column.type
        if not pa.types.is_nested(kind):
            scalars[name] = values = _numpy(column, name, where)
        elif kept is not None and name.startswith(SESSION):
            matrices[name] = values = kept.matrix(column, name)
        elif pa.types.is_fixed_size_list(kind) and not name.startswith(HISTORY):
            matrices[name] = values = _numpy(column.flatten(), name, where).reshape(
                len(column), kind.list_size
            )
        elif pa.types.is_fixed_size_list(kind):
            cells = _numpy(column.flatten(), name, where).reshape(len(column), kind.list_size)
            if kind.list_size < lengths.max(initial=0):
                raise _lengths_differ(name, where)
            histories[name] = values = cells[np.arange(kind.list_size) < lengths[:, None]]
        elif pa.types.is_list(kind):
            offsets = column.offsets.to_numpy()
            if not np.array_equal(np.diff(offsets), lengths):
                raise _lengths_differ(name, where)
            histories[name] = values = _numpy(column.flatten(), name, where)
        else:
            raise ContractError(
                f"The column {name} is of a type that no batch can hold.",
                where=where,
                expected="numbers, or lists of numbers",
                got=str(kind),
            )
        if name in limits:
            _check_range(values, name, limits[name], where)
    return Rows(scalars, matrices, histories, lengths, np.cumsum(lengths) - lengths)


def _numpy(column: pa.Array, name: str, where: Path | str) -> Array:
    if column.null_count:
        raise ContractError(
            f"The column {name} holds nulls.",
            where=where,
            expected="a value in every row",
            got=f"{column.null_count} nulls",
        )
    values: Array = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biuf":
        raise ContractError(
            f"The column {name} is of a type that no batch can hold.",
            where=where,
            expected="numbers, or lists of numbers",
            got=str(column.type),
        )
    return values


def _check_range(values: Array, name: str, limit: int, where: Path | str) -> None:
    if values.size and (values.min() < 0 or values.max() >= limit):
        raise ContractError(
            f"The column {name} holds a value that the manifest does not allow.",
            where=where,
            expected=f"0 to {limit - 1}",
            got=f"{values.min()} to {values.max()}",
            do="make the data set again: this shard and the manifest are not of one run",
        )


def _lengths_differ(name: str, where: Path | str) -> ContractError:
    return ContractError(
        f"The lists of {name} do not match {LENGTH}.",
        where=where,
        expected=f"as many behaviours in each row as {LENGTH} says",
        got="other lengths",
    )


class _Sessions:
    """How `session_length` splits the `session_` columns of some rows.

    Args:
        lengths: behaviours of each kept session, latest first, 0 where there is none; N x M.
        most: K.
        where: the shard, for messages.
    """

    def __init__(self, lengths: NDArray[np.integer], most: int, where: Path | str) -> None:
        self.lengths, self.where = lengths, where
        self.mask: NDArray[np.bool_] = np.arange(most) < lengths[:, :, None]

    @classmethod
    def read(cls, column: pa.Array, sessions: tuple[int, int], where: Path | str) -> _Sessions:
        """Read `session_length` of either layout."""
        count, most = sessions
        flat = _numpy(column.flatten(), SESSION_LENGTH, where)
        _check_range(flat, SESSION_LENGTH, most + 1, where)
        if pa.types.is_fixed_size_list(column.type):
            kept = np.full(len(column), column.type.list_size)
            fits = column.type.list_size == count
        else:
            kept = np.diff(column.offsets.to_numpy())
            fits = bool((kept <= count).all())
        if not fits:
            raise _sessions_differ(SESSION_LENGTH, where)
        lengths = np.zeros((len(column), count), np.int16)
        lengths[np.arange(count) < kept[:, None]] = flat
        return cls(lengths, most, where)

    def matrix(self, column: pa.Array, name: str) -> Array:
        """A `session_` column as the padded layout stores it: N x M, or N x (M K)."""
        if name == SESSION_LENGTH:
            return self.lengths
        flat = _numpy(column.flatten(), name, self.where)
        rows, count, most = self.mask.shape
        if pa.types.is_fixed_size_list(column.type):
            if column.type.list_size != count * most:
                raise _sessions_differ(name, self.where)
            return flat.reshape(rows, count * most)
        if not np.array_equal(np.diff(column.offsets.to_numpy()), self.mask.sum((1, 2))):
            raise _sessions_differ(name, self.where)
        cells = np.zeros(self.mask.shape, flat.dtype)
        cells[self.mask] = flat
        return cells.reshape(rows, count * most)


def _sessions_differ(name: str, where: Path | str) -> ContractError:
    return ContractError(
        f"The lists of {name} do not match the sessions.",
        where=where,
        expected=f"as many values in each row as {SESSION_LENGTH} and the manifest's config say",
        got="other lengths",
        do="make the data set again: this shard and the manifest are not of one run",
    )
