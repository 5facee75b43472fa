"""Shards as Parquet, for a fraction of the work that a general writer does.

A general writer finds out, cell by cell, where lists start and what is null. In a shard nothing is
null, and a padded history starts every L cells: the same pattern in every page.

The parts of the Apache Parquet format used here:

```
file           PAR1, row groups, footer, the footer's length (4 bytes, little endian), PAR1
row group      one column chunk for each column, in the schema's order
column chunk   data pages of version 1: a header, then one block under LZ4_RAW
block          repetition levels, definition levels, values; of a scalar just values
levels         their length (4 bytes), then runs of the RLE/bit-packing hybrid, 1 bit a level
values         PLAIN: little-endian int32, int64 or float32; a narrower integer becomes an int32
header, footer see `pipeline/parquet_thrift.py`; no statistics, indexes, dictionaries or checksums
```

A list column is `required group NAME (LIST) { repeated group list { required TYPE element } }`, so
a repetition level is 0 where a list starts and 1 elsewhere, and a definition level is 1, or 0 for
an empty list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import parquet_thrift as thrift
from schemas.errors import ContractError

PAGE_BYTES = 1 << 20
"""Bytes of values in a page: larger pages cost less, but hardly so from here on."""

MAGIC = b"PAR1"


class Page(NamedTuple):
    """A data page before compression.

    Attributes:
        levels: the encoded levels; nothing for a scalar.
        total: number of levels: one for each value and each empty list.
        values: (cells,) as Arrow holds them, not widened yet.
    """

    levels: bytes
    total: int
    values: npt.NDArray[Any]


class ShardWriter:
    """Writes tables of one schema as a Parquet file, a row group each.

    The file is complete after `close`, or at the end of the `with` block. After an error in the
    block it has no footer, and every reader refuses it. Threads with a writer each run side by
    side: nearly all of the work is done without Python's global lock.

    Args:
        where: a path, or a buffered binary file, which stays open.
        schema: columns of int8, int16, int32, int64, uint8, float32, or fixed-size or plain lists
            of those; neither columns nor elements may be nullable.

    Attributes:
        rows: rows written so far.
        nbytes: bytes written so far.

    Raises:
        ContractError: the schema has any other column.
    """

    def __init__(self, where: Path | str | BinaryIO, schema: pa.Schema) -> None:
        self.rows = self.nbytes = 0
        self._schema = schema
        self._dtypes = [thrift.physical(field).dtype for field in schema]
        self._groups: list[thrift.Thrift] = []
        self._codec = pa.Codec("lz4_raw")
        self._digest = hashlib.sha256()
        self._scratch = np.empty(0, np.uint8)
        self._owned = isinstance(where, Path | str)
        self._file: BinaryIO | None
        if isinstance(where, Path | str):
            self._file = Path(where).open("wb")  # noqa: SIM115
        else:
            self._file = where
        self._write(MAGIC)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._release()

    def write_table(self, table: pa.Table) -> None:
        """Write a table as one row group; a table without rows adds nothing.

        Raises:
            ContractError: the table has another schema, or nulls.
            ValueError: the writer is closed.
        """
        if not table.schema.equals(self._schema):
            raise ContractError(
                "A block of rows does not have its shard's schema.",
                expected=str(self._schema),
                got=str(table.schema),
            )
        if table.num_rows == 0:
            return
        start, plain, chunks = self.nbytes, 0, []
        for field, dtype, column in zip(self._schema, self._dtypes, table.columns, strict=True):
            chunk, size = self._write_column(field, dtype, column)
            chunks.append(chunk)
            plain += size
        self._groups.append(thrift.row_group(chunks, table.num_rows, plain, self.nbytes - start))
        self.rows += table.num_rows

    def close(self) -> None:
        """Write the footer, which completes the file; closing again does nothing."""
        if self._file is not None:
            self._write(ending(thrift.footer(self._schema, self._groups, self.rows)))
            self._release()

    def sha256(self) -> str:
        """The SHA-256 of the bytes written so far, in hexadecimal: once closed, of the file."""
        return self._digest.hexdigest()

    def _release(self) -> None:
        if self._owned and self._file is not None:
            self._file.close()
        self._file = None

    def _write(self, data: bytes | pa.Buffer) -> None:
        if self._file is None:
            raise ValueError("the writer is closed")
        self._file.write(data)
        self._digest.update(data)
        self.nbytes += len(data)

    def _write_column(
        self, field: pa.Field, dtype: np.dtype[Any], column: pa.ChunkedArray
    ) -> tuple[thrift.Thrift, int]:
        """Write a column's pages; its ColumnChunk for the footer, and its bytes uncompressed."""
        start, total, plain = self.nbytes, 0, 0
        for page in _pages(field, column, dtype.itemsize):
            block = self._block(page, dtype)
            packed = self._codec.compress(block)
            header = thrift.page_header(page.total, len(block), len(packed))
            self._write(header)
            self._write(packed)
            total += page.total
            plain += len(header) + len(block)
        return thrift.column_chunk(field, total, plain, start, self.nbytes), plain

    def _block(self, page: Page, dtype: np.dtype[Any]) -> memoryview:
        """The page uncompressed, valid until the next call: values are widened as they move in."""
        low = len(page.levels)
        high = low + len(page.values) * dtype.itemsize
        if high > len(self._scratch):
            self._scratch = np.empty(high, np.uint8)
        self._scratch[:low] = np.frombuffer(page.levels, np.uint8)
        np.copyto(self._scratch[low:high].view(dtype), page.values)
        return self._scratch[:high].data


def ending(footer: bytes) -> bytes:
    """What follows the row groups: the footer, and how long it is."""
    return footer + len(footer).to_bytes(4, "little") + MAGIC


def rows_of_a_page(width: int, size: int = 1) -> int:
    """How many rows fill a page, of `size` values each, of `width` bytes each; at least one."""
    return max(1, PAGE_BYTES // width // size)


def _pages(field: pa.Field, column: pa.ChunkedArray, width: int) -> Iterator[Page]:
    """The column's rows as pages; a stored value takes `width` bytes."""
    cells = rows_of_a_page(width)
    for chunk in column.chunks:
        if not thrift.is_list(field.type):
            values = _values(field, chunk)
            for low in range(0, len(values), cells):
                part = values[low : low + cells]
                yield Page(b"", len(part), part)
            continue
        _refuse_nulls(field, chunk)
        if pa.types.is_list(field.type):
            yield from _list_pages(field, chunk, cells)
            continue
        size = field.type.list_size
        values = _values(field, chunk.values.slice(chunk.offset * size, len(chunk) * size))
        step = rows_of_a_page(width, size) * size
        for low in range(0, len(values), step):
            part = values[low : low + step]
            yield Page(fixed_levels(size, len(part) // size), len(part), part)


def _list_pages(field: pa.Field, chunk: pa.ListArray, cells: int) -> Iterator[Page]:
    offsets = chunk.offsets.to_numpy().astype(np.int64)
    values = _values(field, chunk.values.slice(offsets[0], offsets[-1] - offsets[0]))
    offsets -= offsets[0]
    low = 0
    while low < len(chunk):
        high = int(np.searchsorted(offsets, offsets[low] + cells, side="right")) - 1
        # A page has a row at least; empty lists have levels, too, so they also fill it.
        high = min(max(high, low + 1), low + cells)
        part = values[offsets[low] : offsets[high]]
        yield Page(*_list_levels(np.diff(offsets[low : high + 1])), part)
        low = high


def _values(field: pa.Field, array: pa.Array) -> npt.NDArray[Any]:
    """Arrow's own buffer as an array."""
    _refuse_nulls(field, array)
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=True)
    return values


def _refuse_nulls(field: pa.Field, array: pa.Array) -> None:
    if array.null_count:
        raise ContractError(
            f"The shard's column {field.name} has nulls.",
            expected="a value in every row and every element of a list",
            got=f"{array.null_count} nulls",
        )


@lru_cache(maxsize=32)
def fixed_levels(size: int, rows: int) -> bytes:
    """The encoded levels of `rows` lists of `size` cells each: pages of equal size repeat them."""
    return _list_levels(np.full(rows, size))[0]


def _list_levels(lengths: npt.NDArray[np.integer[Any]]) -> tuple[bytes, int]:
    """The levels of lists of these lengths, and their number: an empty list has one, too."""
    taken = np.maximum(lengths, 1)
    ends = np.cumsum(taken, dtype=np.int64)
    starts, total = ends - taken, int(ends[-1])
    repeated = np.ones(total, np.bool_)
    repeated[starts] = False
    if lengths.all():
        # One RLE run of ones.
        return _prefixed(_bit_packed(repeated)) + _prefixed(
            thrift.varint(total << 1) + b"\1"
        ), total
    defined = np.ones(total, np.bool_)
    defined[starts] = lengths > 0
    return _prefixed(_bit_packed(repeated)) + _prefixed(_bit_packed(defined)), total


def _bit_packed(levels: npt.NDArray[np.bool_]) -> bytes:
    """Levels as one bit-packed run, of whole groups of 8."""
    groups = -(-len(levels) // 8)
    return thrift.varint(groups << 1 | 1) + np.packbits(levels, bitorder="little").tobytes()


def _prefixed(runs: bytes) -> bytes:
    return len(runs).to_bytes(4, "little") + runs
