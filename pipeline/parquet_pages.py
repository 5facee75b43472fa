"""Padded shards read back, for a fraction of the work that a general reader does.

A general reader finds out, level by level, where each list starts. In a padded shard they start
every L cells, and `ShardWriter` writes the levels of so many such lists always as the same bytes:
where a page begins with those, the rest of it are the cells. Whatever is not, byte for byte, as
`ShardWriter` writes it is left to Arrow: what comes out is what Arrow makes of the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import parquet_shards
from pipeline import parquet_thrift as thrift
from pipeline.lz4_block import unpacked
from schemas.errors import ContractError

Values = npt.NDArray[Any]

# Of a column of a row group, compressed: a shard's has about 1 MB.
_MOST_BYTES = 1 << 26


class _OtherwiseError(Exception):
    """Something is not as `ShardWriter` writes it."""


def read_batches(file: pq.ParquetFile, path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """All rows of a shard, in their order.

    Args:
        file: the shard, opened.
        path: where it lies.
        rows: in a batch, at most.

    Raises:
        OSError: the file is damaged, or cannot be read.
        pyarrow.ArrowInvalid: the file is damaged.
    """
    group = given = 0
    if _is_padded(file.schema_arrow):
        # Where it cannot go on, Arrow reads on, or says what is wrong.
        with path.open("rb") as data, suppress(_OtherwiseError, OSError):
            _check_footer(file, data)
            for group in range(file.num_row_groups):
                given = 0
                for batch in _row_group(file, group, data, rows):
                    yield batch
                    given += len(batch)
            return
    left = range(group, file.num_row_groups)
    for batch in file.iter_batches(rows, row_groups=list(left), use_threads=False):
        again = min(given, len(batch))
        given -= again
        if again < len(batch):
            yield batch.slice(again)


def _is_padded(schema: pa.Schema) -> bool:
    """Whether these are a shard's columns, with lists of fixed sizes and no others."""
    try:
        for field in schema:
            thrift.physical(field)
    except ContractError:
        return False
    lists = [field.type for field in schema if thrift.is_list(field.type)]
    return bool(lists) and all(pa.types.is_fixed_size_list(kind) for kind in lists)


def _check_footer(file: pq.ParquetFile, data: BinaryIO) -> None:
    """Refuse a footer but the one that `ShardWriter` writes for the sizes that it has.

    So it is known, too, how each column is stored.

    Raises:
        _OtherwiseError: it is another one.
    """
    try:
        ending = parquet_shards.ending(_footer(file))
    except ValueError:  # a size below 0, or a column too few
        raise _OtherwiseError from None
    data.seek(-len(ending), os.SEEK_END)
    if data.read() != ending:
        raise _OtherwiseError


def _footer(file: pq.ParquetFile) -> bytes:
    """The footer that `ShardWriter` writes for the sizes that a file's footer has."""
    schema, held = file.schema_arrow, file.metadata
    groups = []
    for group in (held.row_group(k) for k in range(held.num_row_groups)):
        columns = [group.column(k) for k in range(group.num_columns)]
        chunks = [
            thrift.column_chunk(
                field,
                column.num_values,
                column.total_uncompressed_size,
                column.data_page_offset,
                column.data_page_offset + column.total_compressed_size,
            )
            for field, column in zip(schema, columns, strict=True)
        ]
        packed = sum(column.total_compressed_size for column in columns)
        groups.append(thrift.row_group(chunks, group.num_rows, group.total_byte_size, packed))
    return thrift.footer(schema, groups, held.num_rows)


def _row_group(
    file: pq.ParquetFile, group: int, data: BinaryIO, rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a row group; the last batch comes when all of it is as it should be."""
    schema, held = file.schema_arrow, file.metadata.row_group(group)
    columns = []
    for k, field in enumerate(schema):
        chunk = held.column(k)
        if chunk.total_compressed_size > _MOST_BYTES:
            raise _OtherwiseError
        data.seek(chunk.data_page_offset)
        pages = data.read(chunk.total_compressed_size)
        columns.append(_Column(field, pages, chunk.num_values))
    for low in range(0, held.num_rows, rows):
        count = min(rows, held.num_rows - low)
        arrays = [column.take(count) for column in columns]
        if low + count == held.num_rows and not all(column.done for column in columns):
            raise _OtherwiseError
        yield pa.record_batch(arrays, schema=schema)


class _Column:
    """A column of a row group, of which pages are read as rows are taken.

    Args:
        field: the column.
        pages: one after the other, as in the file.
        values: that they hold.
    """

    def __init__(self, field: pa.Field, pages: bytes, values: int) -> None:
        self._list = field.type if thrift.is_list(field.type) else None
        self._size = 1 if self._list is None else field.type.list_size
        self._stored, self._dtype = thrift.physical(field)[1:3]
        self._pages, self._at, self._left = pages, 0, values
        self._over: Values = np.empty(0, self._dtype)

    @property
    def done(self) -> bool:
        """Whether just so many values were there as there should be."""
        return self._left == len(self._over) == 0 and self._at == len(self._pages)

    def take(self, rows: int) -> pa.Array:
        """The next rows."""
        parts, held, wanted = [self._over], len(self._over), rows * self._size
        while held < wanted:
            parts.append(self._page())
            held += len(parts[-1])
        cells = parts[-1] if len(parts[-1]) == held else np.concatenate(parts)
        cells, self._over = cells[:wanted], cells[wanted:]
        values = pa.array(cells)  # of the same memory
        if self._list is None:
            return values
        return pa.FixedSizeListArray.from_arrays(values, type=self._list)

    def _page(self) -> Values:
        """The cells of the next page."""
        header = thrift.read_page_header(self._pages, self._at)
        if header is None:
            raise _OtherwiseError
        width = self._stored.itemsize
        rows, rest = divmod(header.levels, self._size)
        if rest or not 0 < rows <= parquet_shards.rows_of_a_page(width, self._size):
            raise _OtherwiseError
        levels = b"" if self._list is None else parquet_shards.fixed_levels(self._size, rows)
        plain = len(levels) + header.levels * width
        self._at = header.end + header.packed
        if header.plain != plain:
            raise _OtherwiseError
        block = unpacked(self._pages[header.end : self._at], plain)
        if not block.slice(0, len(levels)).equals(pa.py_buffer(levels)):
            raise _OtherwiseError
        stored = np.frombuffer(block, self._stored, header.levels, len(levels))
        cells = stored.astype(self._dtype)
        if self._dtype != self._stored and not np.array_equal(cells, stored):
            raise _OtherwiseError
        self._left -= len(cells)
        return cells
