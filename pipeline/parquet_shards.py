"""Shards as Parquet, for a fraction of the work that a general writer does.

A general writer finds out, cell by cell, where lists start and what is null. In a shard nothing is
null, and a padded history starts every L cells: the same pattern in every page.

The parts of Apache Parquet used here (its numbers are those of `parquet.thrift`):

```
file           PAR1, row groups, footer, the footer's length (4 bytes, little endian), PAR1
row group      one column chunk for each column, in the schema's order
column chunk   data pages of version 1: a header, then one block under LZ4_RAW
block          repetition levels, definition levels, values; of a scalar just values
levels         their length (4 bytes), then runs of the RLE/bit-packing hybrid, 1 bit a level
values         PLAIN: little-endian int32, int64 or float32; a narrower integer becomes an int32
header, footer Thrift structs in the compact protocol
```

A list column is `required group NAME (LIST) { repeated group list { required TYPE element } }`, so
a repetition level is 0 where a list starts and 1 elsewhere, and a definition level is 1, or 0 for
an empty list. Arrow's own schema is kept in the footer, and with it the lists' fixed size.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.errors import ContractError

PAGE_BYTES = 1 << 20
"""Bytes of values in a page: fewer and larger pages cost less, up to here."""

MAGIC = b"PAR1"
INT32, INT64, FLOAT = 1, 2, 4  # physical types
REQUIRED, REPEATED = 0, 2
LIST = 3  # a converted type, and its place in the union of logical types
INTEGER = 10  # a place in the union of logical types
PLAIN, RLE = 0, 3
LZ4_RAW = 7


class Physical(NamedTuple):
    """How Parquet stores an Arrow type.

    Attributes:
        kind: the physical type.
        dtype: of the stored values.
        narrower: (converted type, bits, signed) of an integer that is narrower than `kind`.
    """

    kind: int
    dtype: np.dtype[Any]
    narrower: tuple[int, int, bool] | None = None


PHYSICAL: dict[pa.DataType, Physical] = {
    pa.int8(): Physical(INT32, np.dtype("<i4"), (15, 8, True)),
    pa.int16(): Physical(INT32, np.dtype("<i4"), (16, 16, True)),
    pa.int32(): Physical(INT32, np.dtype("<i4")),
    pa.int64(): Physical(INT64, np.dtype("<i8")),
    pa.uint8(): Physical(INT32, np.dtype("<i4"), (11, 8, False)),
    pa.float32(): Physical(FLOAT, np.dtype("<f4")),
}


class Page(NamedTuple):
    """A data page before compression.

    Attributes:
        levels: the encoded levels; nothing for a scalar.
        count: number of levels: that of values and empty lists.
        values: (cells,) as Arrow holds them, not widened yet.
    """

    levels: bytes
    count: int
    values: npt.NDArray[Any]


class ShardWriter:
    """Writes tables of one schema as a Parquet file, a row group each.

    The file is complete after `close`, or at the end of the `with` block. After an error in the
    block it has no footer, and every reader refuses it. Threads with a writer each run side by
    side: nearly all of the work is done without Python's global lock.

    Args:
        where: a path, or a binary file, which stays open.
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
        self._physical = [_physical(field) for field in schema]
        self._groups: list[Thrift] = []
        self._codec = pa.Codec("lz4_raw")
        self._digest = hashlib.sha256()
        self._scratch = np.empty(PAGE_BYTES, np.uint8)
        self._owned = isinstance(where, Path | str)
        self._file: BinaryIO | None
        self._file = Path(where).open("wb") if isinstance(where, Path | str) else where
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
        start, chunks, plain = self.nbytes, [], 0
        for field, physical, column in zip(
            self._schema, self._physical, table.columns, strict=True
        ):
            chunk, size = self._write_chunk(field, physical, column)
            chunks.append(chunk)
            plain += size
        written = {5: i64(start), 6: i64(self.nbytes - start)}
        self._groups.append(
            struct({1: listed(chunks), 2: i64(plain), 3: i64(table.num_rows), **written})
        )
        self.rows += table.num_rows

    def close(self) -> None:
        """Write the footer, which completes the file; closing again does nothing."""
        if self._file is None:
            return
        nodes = [struct({4: text("schema"), 5: i32(len(self._schema))})]
        for field, physical in zip(self._schema, self._physical, strict=True):
            nodes += _nodes(field, physical)
        arrow = base64.b64encode(self._schema.serialize()).decode()
        footer = {1: i32(2), 2: listed(nodes), 3: i64(self.rows), 4: listed(self._groups)}
        footer[5] = listed([struct({1: text("ARROW:schema"), 2: text(arrow)})])
        footer[6] = text("tinprep")
        data = struct(footer).data
        self._write(data + len(data).to_bytes(4, "little") + MAGIC)
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

    def _write_chunk(
        self, field: pa.Field, physical: Physical, column: pa.ChunkedArray
    ) -> tuple[Thrift, int]:
        """Write one column's pages; its ColumnChunk for the footer, and its bytes uncompressed."""
        start, count, plain = self.nbytes, 0, 0
        for page in _pages(field, column, physical.dtype.itemsize):
            block = self._block(page, physical.dtype)
            packed = self._codec.compress(block)
            about = struct({1: i32(page.count), 2: i32(PLAIN), 3: i32(RLE), 4: i32(RLE)})
            header = struct({1: i32(0), 2: i32(len(block)), 3: i32(len(packed)), 5: about}).data
            self._write(header)
            self._write(packed)
            count += page.count
            plain += len(header) + len(block)
        path = [field.name, "list", "element"] if _is_list(field.type) else [field.name]
        about = struct(
            {
                1: i32(physical.kind),
                2: listed([i32(PLAIN), i32(RLE)]),
                3: listed([text(name) for name in path]),
                4: i32(LZ4_RAW),
                5: i64(count),
                6: i64(plain),
                7: i64(self.nbytes - start),
                9: i64(start),
            }
        )
        return struct({2: i64(start), 3: about}), plain

    def _block(self, page: Page, dtype: np.dtype[Any]) -> memoryview:
        """The page uncompressed, valid until the next call: values are widened as they move in."""
        low = len(page.levels)
        high = low + len(page.values) * dtype.itemsize
        if high > len(self._scratch):
            self._scratch = np.empty(high, np.uint8)
        self._scratch[:low] = np.frombuffer(page.levels, np.uint8)
        np.copyto(self._scratch[low:high].view(dtype), page.values)
        return self._scratch[:high].data


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)


def _physical(field: pa.Field) -> Physical:
    kind, nullable = field.type, field.nullable
    if _is_list(kind):
        nullable |= kind.value_field.nullable
        empty = pa.types.is_fixed_size_list(kind) and kind.list_size == 0
        kind = pa.null() if empty else kind.value_type
    if nullable or kind not in PHYSICAL:
        raise ContractError(
            f"A shard cannot hold the column {field.name}.",
            expected="int8, int16, int32, int64, uint8, float32, or lists of them, not nullable",
            got=f"{field.type}{', nullable' if nullable else ''}",
        )
    return PHYSICAL[kind]


def _values(name: str, array: pa.Array) -> npt.NDArray[Any]:
    """Arrow's own buffer as an array."""
    if array.null_count:
        raise ContractError(
            f"A shard's column {name} has nulls.", expected="none", got=str(array.null_count)
        )
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=True)
    return values


def _pages(field: pa.Field, column: pa.ChunkedArray, width: int) -> Iterator[Page]:
    """The column's rows as pages of about PAGE_BYTES, at least a row each."""
    cells = PAGE_BYTES // width
    for chunk in column.chunks:
        rows = len(chunk)
        if not _is_list(field.type):
            values = _values(field.name, chunk)
            for low in range(0, rows, cells):
                part = values[low : low + cells]
                yield Page(b"", len(part), part)
            continue
        if chunk.null_count:
            _values(field.name, chunk)
        if pa.types.is_fixed_size_list(field.type):
            size = field.type.list_size
            values = _values(field.name, chunk.values.slice(chunk.offset * size, rows * size))
            step = max(1, cells // size)
            for low in range(0, rows, step):
                part = values[low * size : (low + step) * size]
                yield Page(_fixed_levels(size, len(part) // size), len(part), part)
            continue
        offsets = chunk.offsets.to_numpy().astype(np.int64)
        values = _values(field.name, chunk.values.slice(offsets[0], offsets[-1] - offsets[0]))
        offsets -= offsets[0]
        low = 0
        while low < rows:
            high = int(np.searchsorted(offsets, offsets[low] + cells, side="right")) - 1
            high = min(max(high, low + 1), low + cells)
            part = values[offsets[low] : offsets[high]]
            levels, count = _list_levels(np.diff(offsets[low : high + 1]), len(part))
            yield Page(levels, count, part)
            low = high


@lru_cache(maxsize=32)
def _fixed_levels(size: int, rows: int) -> bytes:
    """The levels of `rows` lists of `size` cells each."""
    repeated = np.ones(rows * size, np.bool_)
    repeated[::size] = False
    return _packed(repeated) + _ones(rows * size)


def _list_levels(lengths: npt.NDArray[np.int64], cells: int) -> tuple[bytes, int]:
    """The levels of lists of these lengths, and their number: an empty list has one, too."""
    taken = np.maximum(lengths, 1)
    starts = np.cumsum(taken) - taken
    count = int(starts[-1] + taken[-1])
    repeated = np.ones(count, np.bool_)
    repeated[starts] = False
    if count == cells:
        return _packed(repeated) + _ones(count), count
    defined = np.ones(count, np.bool_)
    defined[starts] = lengths > 0
    return _packed(repeated) + _packed(defined), count


def _packed(levels: npt.NDArray[np.bool_]) -> bytes:
    """Levels as one bit-packed run of whole groups of 8."""
    run = _varint((-(-len(levels) // 8) << 1) | 1) + np.packbits(levels, bitorder="little").tobytes()
    return len(run).to_bytes(4, "little") + run


def _ones(count: int) -> bytes:
    """`count` levels of 1 as one RLE run."""
    run = _varint(count << 1) + b"\1"
    return len(run).to_bytes(4, "little") + run


def _nodes(field: pa.Field, physical: Physical) -> list[Thrift]:
    """The column's SchemaElements, depth first."""
    leaf = {1: i32(physical.kind), 3: i32(REQUIRED), 4: text(field.name)}
    if physical.narrower is not None:
        converted, bits, signed = physical.narrower
        leaf |= {6: i32(converted), 10: struct({INTEGER: struct({1: i8(bits), 2: flag(signed)})})}
    if not _is_list(field.type):
        return [struct(leaf)]
    group = {3: i32(REQUIRED), 4: text(field.name), 5: i32(1), 6: i32(LIST)}
    group[10] = struct({LIST: struct({})})
    repeated = struct({3: i32(REPEATED), 4: text("list"), 5: i32(1)})
    return [struct(group), repeated, struct({**leaf, 4: text("element")})]


class Thrift(NamedTuple):
    """A value in Thrift's compact protocol: its type's number and its bytes."""

    kind: int
    data: bytes


def _varint(number: int) -> bytes:
    """7 bits a byte, the lowest first; the high bit says that more follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def i8(number: int) -> Thrift:
    """A number of 0..127."""
    return Thrift(3, bytes([number]))


def i32(number: int) -> Thrift:
    """A number of 0 or more; zigzag doubles it."""
    return Thrift(5, _varint(number << 1))


def i64(number: int) -> Thrift:
    """A number of 0 or more; zigzag doubles it."""
    return Thrift(6, _varint(number << 1))


def flag(value: bool) -> Thrift:
    """A boolean field, which its type alone tells."""
    return Thrift(1 if value else 2, b"")


def text(value: str) -> Thrift:
    """A string, as UTF-8 behind its length."""
    data = value.encode()
    return Thrift(8, _varint(len(data)) + data)


def listed(values: Sequence[Thrift]) -> Thrift:
    """Values of one type; an empty list is one of structs."""
    kind = values[0].kind if values else 12
    count = len(values)
    head = bytes([count << 4 | kind]) if count < 15 else bytes([0xF0 | kind]) + _varint(count)
    return Thrift(9, head + b"".join(value.data for value in values))


def struct(fields: dict[int, Thrift]) -> Thrift:
    """Fields by number, ascending and less than 16 apart, each after its step and type."""
    out, last = bytearray(), 0
    for number, value in sorted(fields.items()):
        out.append((number - last) << 4 | value.kind)
        out += value.data
        last = number
    return Thrift(12, bytes(out) + b"\0")
