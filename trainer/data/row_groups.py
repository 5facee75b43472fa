"""Row groups of shards: what is read from disk at a time, checked, and stripped of its padding.

Legend: N rows, T behaviours over all rows, M kept sessions of at most K behaviours each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.errors import ContractError, InputError
from schemas.manifest import History
from trainer.data.batches import LENGTH, PLACE, Array, Index, Rows, Runs, concat
from trainer.data.facts import columns_of, session_columns_of

# What Arrow raises for a damaged file; names in it may be no UTF-8.
_DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError)
_OTHER_RUN = "make the data set again: this shard and the manifest are not of one run"


@dataclass(frozen=True)
class Wanted:
    """Which columns to read, and what the manifest allows in them.

    Attributes:
        columns: their names; the length of each history among them, and that of its sessions where
            any column of these is; of a multi-valued feature its length as well.
        limits: column -> the smallest integer that is too large for it (ids, positions, bins).
        histories: those that are read, by what batches call them.
        lists: multi-valued feature -> the most values of a row.
        places: whether to add `PLACE`.
        stored: column -> what the shards call it, of those that they call otherwise.
    """

    columns: tuple[str, ...]
    limits: dict[str, int]
    histories: dict[str, History]
    lists: dict[str, int] = field(default_factory=dict)
    places: bool = False
    stored: dict[str, str] = field(default_factory=dict)

    @cached_property
    def owner(self) -> dict[str, str]:
        """Column of a history -> which one."""
        return {
            c: called for called, one in self.histories.items() for c in columns_of(called, one)
        }

    @cached_property
    def sessions(self) -> dict[str, tuple[str, tuple[int, int]]]:
        """Column of a history's sessions -> that of their lengths, M sessions of K behaviours."""
        found: dict[str, tuple[str, tuple[int, int]]] = {}
        for called, one in self.histories.items():
            if one.shape is not None:
                length, *others = session_columns_of(called, one)
                found |= dict.fromkeys((length, *others), (length, one.shape))
        return found


@dataclass(frozen=True)
class RowGroup:
    """One row group of a shard.

    Attributes:
        nbytes: what the wanted columns take in memory, without padding.
        first: the place of its first row in the split.
    """

    path: Path
    group: int
    rows: int
    nbytes: int
    first: int = 0

    def read(self, wanted: Wanted) -> Rows:
        """Read the columns, of either layout.

        Raises:
            InputError: the shard is missing or damaged.
            ContractError: a null, a value outside its vocabulary, or lists that do not match
                their history's length, their sessions' or their own.
        """
        named = [wanted.stored.get(name, name) for name in wanted.columns]
        table = read_row_group(self.path, self.group, named)
        table = table.select(named).rename_columns(list(wanted.columns))
        rows = concat(_rows(b, wanted, self.path) for b in table.combine_chunks().to_batches())
        if wanted.places:
            rows.scalars[PLACE] = np.arange(self.first, self.first + len(rows))
        return rows


def open_shard(path: Path) -> pq.ParquetFile:
    """Open a shard.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        file = pq.ParquetFile(path, memory_map=True)
        _ = file.schema_arrow.names  # decoded here, where what comes of it is told
        return file
    except FileNotFoundError:
        raise InputError(
            "A shard that the manifest lists is missing.",
            where=path,
            expected="a Parquet file",
            got="no such file",
            do="make the data set again",
        ) from None
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def as_read(schema: pa.Schema, stored: dict[str, str]) -> pa.Schema:
    """A shard's schema, with its columns called as batches call them; see `Wanted.stored`.

    Those of another history, whose name batches have for the one that is read, are left out.
    """
    called = {of: name for name, of in stored.items()}
    kept = [f for f in schema if f.name in called or f.name not in stored]
    return pa.schema([f.with_name(called.get(f.name, f.name)) for f in kept])


def read_row_group(path: Path, group: int, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a shard's row group.

    Raises:
        InputError: the shard is missing or damaged.
    """
    try:
        return open_shard(path).read_row_group(group, columns=list(columns))
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def row_groups_of(path: Path, wanted: Wanted, first: int = 0) -> Iterator[RowGroup]:
    """List the row groups of a shard that have rows; `first` is the place of its first row.

    Raises:
        InputError: the shard is missing or damaged.
        ContractError: it lacks a column, or has one that holds no numbers.
    """
    file = open_shard(path)
    schema = as_read(file.schema_arrow, wanted.stored)
    if lacking := [name for name in wanted.columns if name not in schema.names]:
        raise ContractError(
            "A shard lacks columns.",
            where=path,
            expected=", ".join(wanted.columns),
            got=f"no {', '.join(lacking)}",
            do=_OTHER_RUN,
        )
    widths = {name: _width(schema.field(name), path) for name in wanted.columns}
    of_lengths = {called: f"{called}_length" for called in wanted.histories}
    for group in range(file.num_row_groups):
        try:
            names = [wanted.stored.get(name, name) for name in of_lengths.values()]
            lengths = file.read_row_group(group, columns=names)
            behaviours = {
                called: int(np.asarray(lengths[name], dtype=np.int64).sum())
                for called, name in zip(of_lengths, names, strict=True)
            }
        except (*_DAMAGE, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
        rows = len(lengths)
        nbytes = 16 * rows * len(behaviours)
        for name, width in widths.items():
            kind = schema.field(name).type
            cells = rows
            if pa.types.is_nested(kind):
                if name in wanted.lists:
                    cells = rows * wanted.lists[name]
                elif name in wanted.owner:
                    cells = behaviours[wanted.owner[name]]
                elif name in wanted.sessions:
                    length, (count, most) = wanted.sessions[name]
                    cells = rows * (count if name == length else count * most)
                else:
                    cells = rows * kind.list_size if pa.types.is_fixed_size_list(kind) else 0
            nbytes += cells * width // 8
        if rows:
            yield RowGroup(path, group, rows, nbytes, first)
        first += rows


def _width(field: pa.Field, path: Path) -> int:
    """Bits of a value of a column, of an element of its lists."""
    kind = field.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ContractError(
            f"The column {field.name!a} is of a type that no batch can hold."[:200],
            where=path,
            expected="numbers, or lists of numbers",
            got=str(field.type)[:200],
        )
    return int(kind.bit_width)


def _rows(table: pa.RecordBatch, wanted: Wanted, where: Path) -> Rows:
    """Check one Arrow batch of a shard, and strip its padding."""
    scalars: dict[str, Array] = {}
    matrices: dict[str, Array] = {}
    histories: dict[str, Runs] = {}
    for called, one in wanted.histories.items():
        length = f"{called}_length"
        lengths: Index = _numpy(table.column(length), length, where).astype(np.int64)
        _check_range(lengths, length, one.max_len + 1, where)
        histories[called] = Runs.of({}, lengths)
    held: dict[str, _Sessions] = {}
    for length, shape in {wanted.sessions[n] for n in table.schema.names if n in wanted.sessions}:
        held[length] = _Sessions.read(table.column(length), length, shape, where)
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if not pa.types.is_nested(column.type):
            scalars[name] = values = _numpy(column, name, where)
        elif name in wanted.lists:
            matrices[name] = values = _multi_valued(table, name, wanted.lists[name], where)
        elif name in wanted.sessions:
            matrices[name] = values = held[wanted.sessions[name][0]].matrix(column, name)
        elif name in wanted.owner:
            runs = histories[wanted.owner[name]]
            length = f"{wanted.owner[name]}_length"
            runs.columns[name] = values = _flat(column, name, runs.lengths, length, where)
        elif pa.types.is_fixed_size_list(column.type):
            cells = _numpy(column.flatten(), name, where)
            matrices[name] = values = cells.reshape(len(column), column.type.list_size)
        else:
            raise _lengths_differ(name, where, LENGTH)
        if name in wanted.limits:
            _check_range(values, name, wanted.limits[name], where)
    return Rows(scalars, matrices, histories)


def _flat(column: pa.Array, name: str, lengths: Index, length: str, where: Path) -> Array:
    """A column of a history of either layout, without padding; `length` names its lengths."""
    values = _numpy(column.flatten(), name, where)
    if pa.types.is_fixed_size_list(column.type):
        size = column.type.list_size
        if size < lengths.max(initial=0):
            raise _lengths_differ(name, where, length)
        return values.reshape(len(column), size)[np.arange(size) < lengths[:, None]]
    if not np.array_equal(np.diff(column.offsets.to_numpy()), lengths):
        raise _lengths_differ(name, where, length)
    return values


def _numpy(column: pa.Array, name: str, where: Path) -> Array:
    if column.null_count:
        raise ContractError(
            f"The column {name} holds nulls.",
            where=where,
            expected="a value in every row",
            got=f"{column.null_count} nulls",
        )
    values: Array = column.to_numpy(zero_copy_only=False)
    return values


def _multi_valued(table: pa.RecordBatch, name: str, most: int, where: Path) -> Array:
    """A multi-valued feature of either layout as N x `most`, 0 from each row's length on."""
    column, length = table.column(name), f"{name}_length"
    lengths: Index = _numpy(table.column(length), length, where).astype(np.int64)
    _check_range(lengths, length, most + 1, where)
    real = np.arange(most) < lengths[:, None]
    flat = _numpy(column.flatten(), name, where)
    if pa.types.is_fixed_size_list(column.type):
        if column.type.list_size != most:
            raise _lengths_differ(name, where, length)
        # What stands after a row's own values means nothing.
        return np.where(real, flat.reshape(real.shape), flat.dtype.type(0))
    if not np.array_equal(np.diff(column.offsets.to_numpy()), lengths):
        raise _lengths_differ(name, where, length)
    cells = np.zeros(real.shape, flat.dtype)
    cells[real] = flat
    return cells


def _check_range(values: Array, name: str, limit: int, where: Path) -> None:
    if values.size and (values.min() < 0 or values.max() >= limit):
        raise ContractError(
            f"The column {name} holds a value that the manifest does not allow.",
            where=where,
            expected=f"0 to {limit - 1}",
            got=f"{values.min()} to {values.max()}",
            do=_OTHER_RUN,
        )


class _Sessions:
    """How `session_length` splits the `session_` columns of some rows.

    Args:
        lengths: behaviours of each kept session, latest first, 0 where there is none; N x M.
        most: K.
        length: what their column is called.
        where: the shard, for messages.
    """

    def __init__(self, lengths: NDArray[np.integer], most: int, length: str, where: Path) -> None:
        self.lengths, self.length, self.where = lengths, length, where
        self.mask: NDArray[np.bool_] = np.arange(most) < lengths[:, :, None]

    @classmethod
    def read(
        cls, column: pa.Array, length: str, sessions: tuple[int, int], where: Path
    ) -> _Sessions:
        """Read the column of lengths, called `length`, of either layout."""
        count, most = sessions
        flat = _numpy(column.flatten(), length, where)
        _check_range(flat, length, most + 1, where)
        if pa.types.is_fixed_size_list(column.type):
            kept = np.full(len(column), column.type.list_size)
            fits = column.type.list_size == count
        else:
            kept = np.diff(column.offsets.to_numpy())
            fits = bool((kept <= count).all())
        if not fits:
            raise _sessions_differ(length, length, where)
        lengths = np.zeros((len(column), count), np.int16)
        lengths[np.arange(count) < kept[:, None]] = flat
        return cls(lengths, most, length, where)

    def matrix(self, column: pa.Array, name: str) -> Array:
        """A column of sessions as the padded layout stores it: N x M, or N x (M K)."""
        if name == self.length:
            return self.lengths
        flat = _numpy(column.flatten(), name, self.where)
        rows, count, most = self.mask.shape
        if pa.types.is_fixed_size_list(column.type):
            if column.type.list_size != count * most:
                raise _sessions_differ(name, self.length, self.where)
            return flat.reshape(rows, count * most)
        if not np.array_equal(np.diff(column.offsets.to_numpy()), self.mask.sum((1, 2))):
            raise _sessions_differ(name, self.length, self.where)
        cells = np.zeros(self.mask.shape, flat.dtype)
        cells[self.mask] = flat
        return cells.reshape(rows, count * most)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        "A shard cannot be read.",
        where=path,
        expected="a Parquet file",
        got=" ".join(str(error).split())[:200],
        do="make the data set again",
    )


def _lengths_differ(name: str, where: Path, length: str) -> ContractError:
    return ContractError(
        f"The lists of {name} do not match {length}.",
        where=where,
        expected=f"as many values in each row as {length} says",
        got="other lengths",
    )


def _sessions_differ(name: str, length: str, where: Path) -> ContractError:
    return ContractError(
        f"The lists of {name} do not match the sessions.",
        where=where,
        expected=f"as many values in each row as {length} and the manifest's config say",
        got="other lengths",
        do=_OTHER_RUN,
    )
