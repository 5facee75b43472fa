"""Row groups of shards: what is read from disk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ContractError, InputError
from trainer.arrow import SESSION, SESSION_LENGTH, from_arrow
from trainer.rows import HISTORY, LENGTH, Rows, concat

# What Arrow raises for a damaged file; names in it may be no UTF-8.
_DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError)


@dataclass(frozen=True)
class Piece:
    """One row group of a shard.

    Attributes:
        path: the shard.
        group: which row group.
        rows: its rows.
        nbytes: what the columns it was planned for take in memory, without padding.
    """

    path: Path
    group: int
    rows: int
    nbytes: int

    def read(
        self,
        columns: tuple[str, ...],
        limits: dict[str, int],
        max_len: int,
        sessions: tuple[int, int] | None = None,
    ) -> Rows:
        """Read the columns; see `trainer.arrow.from_arrow` for the arguments.

        Raises:
            InputError: the shard is missing or damaged.
            ContractError: the shard breaks its contract.
        """
        try:
            table = open_shard(self.path).read_row_group(self.group, columns=list(columns))
        except _DAMAGE as error:
            raise _damaged(self.path, error) from error
        batches = table.combine_chunks().to_batches()
        return concat(from_arrow(b, limits, max_len, self.path, sessions) for b in batches)


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


def pieces_of(
    path: Path, columns: tuple[str, ...], sessions: tuple[int, int] | None = None
) -> Iterator[Piece]:
    """List the row groups of a shard with the memory that their columns take without padding.

    Raises:
        InputError: the shard is missing or damaged.
        ContractError: it lacks a column, or has one that holds no numbers.
    """
    file = open_shard(path)
    schema = file.schema_arrow
    if lacking := [name for name in (LENGTH, *columns) if name not in schema.names]:
        raise ContractError(
            "A shard lacks columns.",
            where=path,
            expected=", ".join(columns),
            got=f"no {', '.join(lacking)}",
            do="make the data set again: this shard and the manifest are not of one run",
        )
    widths = {name: _width(schema.field(name), path) for name in (LENGTH, *columns)}
    count, most = sessions or (0, 0)
    for group in range(file.num_row_groups):
        try:
            lengths = file.read_row_group(group, columns=[LENGTH]).column(0)
            behaviours = int(np.asarray(lengths, dtype=np.int64).sum())
        except (*_DAMAGE, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
        rows = len(lengths)
        nbytes = 16 * rows
        for name in columns:
            kind = schema.field(name).type
            cells = rows
            if pa.types.is_nested(kind):
                if name.startswith(HISTORY):
                    cells = behaviours
                elif sessions is not None and name.startswith(SESSION):
                    cells = rows * (count if name == SESSION_LENGTH else count * most)
                elif pa.types.is_fixed_size_list(kind):
                    cells = rows * kind.list_size
                else:
                    cells = 0
            nbytes += cells * widths[name] // 8
        # An empty row group is nothing to read.
        if rows:
            yield Piece(path, group, rows, nbytes)


def _width(field: pa.Field, path: Path) -> int:
    """Bits of a value of a column, of an element of its lists.

    Raises:
        ContractError: it holds no numbers.
    """
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


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        "A shard cannot be read.",
        where=path,
        expected="a Parquet file",
        got=" ".join(str(error).split())[:200],
        do="make the data set again",
    )
