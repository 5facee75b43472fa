"""Row groups of shards: what is read from disk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import InputError
from trainer.arrow import SESSION, SESSION_LENGTH, from_arrow
from trainer.rows import HISTORY, LENGTH, Rows, concat


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
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(self.path, error) from error
        batches = table.combine_chunks().to_batches()
        return concat(from_arrow(b, limits, max_len, self.path, sessions) for b in batches)


def open_shard(path: Path) -> pq.ParquetFile:
    """Open a shard.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise InputError(
            "A shard that the manifest lists is missing.",
            where=path,
            expected="a Parquet file",
            got="no such file",
            do="make the data set again",
        ) from None
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from error


def pieces_of(
    path: Path, columns: tuple[str, ...], sessions: tuple[int, int] | None = None
) -> Iterator[Piece]:
    """List the row groups of a shard with the memory that their columns take without padding."""
    file = open_shard(path)
    count, most = sessions or (0, 0)
    for group in range(file.num_row_groups):
        lengths = file.read_row_group(group, columns=[LENGTH]).column(0)
        behaviours = int(np.asarray(lengths, dtype=np.int64).sum())
        rows = len(lengths)
        nbytes = 16 * rows
        for name in columns:
            kind = file.schema_arrow.field(name).type
            if not pa.types.is_nested(kind):
                nbytes += rows * kind.bit_width // 8
            elif name.startswith(HISTORY):
                nbytes += behaviours * kind.value_type.bit_width // 8
            elif sessions is not None and name.startswith(SESSION):
                cells = count if name == SESSION_LENGTH else count * most
                nbytes += rows * cells * kind.value_type.bit_width // 8
            elif pa.types.is_fixed_size_list(kind):
                nbytes += rows * kind.list_size * kind.value_type.bit_width // 8
        # An empty row group is nothing to read.
        if rows:
            yield Piece(path, group, rows, nbytes)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        "A shard cannot be read.",
        where=path,
        expected="a Parquet file",
        got=str(error),
        do="make the data set again",
    )
