"""The headers and the footer of a shard's Parquet file, as Thrift structs in the compact protocol.

The numbers are those of Apache Parquet's `parquet.thrift`, named where they do not explain
themselves. Columns are never null, and scalars or lists of scalars.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from schemas.errors import ContractError

INT32, INT64, FLOAT = 1, 2, 4  # physical types
REQUIRED, REPEATED = 0, 2
LIST = 3  # a converted type, and its place in the union of logical types
INTEGER = 10  # a place in the union of logical types
PLAIN, RLE = 0, 3
LZ4_RAW = 7

_NUMBER = rb"([\x80-\xff]{0,4}[\x00-\x7f])"
# The bytes of `page_header`.
_PAGE_HEADER = re.compile(
    rb"\x15\x00\x15%b\x15%b\x2c\x15%b\x15\x00\x15\x06\x15\x06\x00\x00" % ((_NUMBER,) * 3)
)


class Physical(NamedTuple):
    """How Parquet stores an Arrow type.

    Attributes:
        kind: the physical type.
        dtype: of the stored values.
        held: of the values in memory.
        narrower: (converted type, bits, signed) of an integer that is narrower than `kind`.
    """

    kind: int
    dtype: np.dtype[Any]
    held: np.dtype[Any]
    narrower: tuple[int, int, bool] | None = None


PHYSICAL: dict[pa.DataType, Physical] = {
    pa.int8(): Physical(INT32, np.dtype("<i4"), np.dtype(np.int8), (15, 8, True)),
    pa.int16(): Physical(INT32, np.dtype("<i4"), np.dtype(np.int16), (16, 16, True)),
    pa.int32(): Physical(INT32, np.dtype("<i4"), np.dtype(np.int32)),
    pa.int64(): Physical(INT64, np.dtype("<i8"), np.dtype(np.int64)),
    pa.uint8(): Physical(INT32, np.dtype("<i4"), np.dtype(np.uint8), (11, 8, False)),
    pa.float32(): Physical(FLOAT, np.dtype("<f4"), np.dtype(np.float32)),
}


class PageHeader(NamedTuple):
    """What a data page says of itself.

    Attributes:
        levels: number of values and empty lists in the page.
        plain: bytes of the page's block before compression.
        packed: bytes of it after.
        end: where the header ends.
    """

    levels: int
    plain: int
    packed: int
    end: int


class Thrift(NamedTuple):
    """A value in the compact protocol: its type's number and its bytes."""

    kind: int
    data: bytes


def is_list(kind: pa.DataType) -> bool:
    """Whether the type is a list, of a fixed size or not."""
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind))


def physical(field: pa.Field) -> Physical:
    """How the column's values, or its lists' elements, are stored.

    Raises:
        ContractError: a shard cannot hold such a column.
    """
    kind, nullable = field.type, field.nullable
    if is_list(kind):
        nullable |= kind.value_field.nullable
        empty = pa.types.is_fixed_size_list(kind) and kind.list_size < 1
        kind = pa.null() if empty else kind.value_type
    if nullable or kind not in PHYSICAL:
        raise ContractError(
            f"A shard cannot hold the column {field.name}.",
            expected="int8, int16, int32, int64, uint8, float32, or lists of them, never null",
            got=f"{field.type}{', which may be null' if nullable else ''}",
            do="Change the column's type in the shard's schema.",
        )
    return PHYSICAL[kind]


def page_header(levels: int, plain: int, packed: int) -> bytes:
    """A PageHeader with its DataPageHeader.

    Args:
        levels: number of values and empty lists in the page.
        plain: bytes of the page's block before compression.
        packed: bytes of it after.
    """
    page = struct({1: i32(levels), 2: i32(PLAIN), 3: i32(RLE), 4: i32(RLE)})
    return struct({1: i32(0), 2: i32(plain), 3: i32(packed), 5: page}).data


def read_page_header(data: bytes, at: int) -> PageHeader | None:
    """The header at that place, if `page_header` wrote it."""
    found = _PAGE_HEADER.match(data, at)
    numbers = [] if found is None else [read_varint(number) for number in found.groups()]
    if found is None or any(number & 1 for number in numbers):  # odd ones are negative
        return None
    plain, packed, levels = (number >> 1 for number in numbers)
    return PageHeader(levels, plain, packed, found.end())


def column_chunk(field: pa.Field, levels: int, plain: int, start: int, end: int) -> Thrift:
    """A ColumnChunk with its ColumnMetaData.

    Args:
        field: the column.
        levels: number of values and empty lists in all pages.
        plain: bytes of all pages and headers before compression.
        start: where in the file its first page's header starts.
        end: where in the file its last page ends.
    """
    path = [field.name, "list", "element"] if is_list(field.type) else [field.name]
    metadata = {
        1: i32(physical(field).kind),
        2: listed([i32(PLAIN), i32(RLE)]),
        3: listed([text(name) for name in path]),
        4: i32(LZ4_RAW),
        5: i64(levels),
        6: i64(plain),
        7: i64(end - start),
        9: i64(start),
    }
    # The offset is that of a second copy of the metadata, which is not written.
    return struct({2: i64(0), 3: struct(metadata)})


def row_group(chunks: Sequence[Thrift], rows: int, plain: int, packed: int) -> Thrift:
    """A RowGroup of `chunks`, which take `plain` bytes before compression and `packed` after."""
    return struct({1: listed(chunks), 2: i64(plain), 3: i64(rows), 6: i64(packed)})


def footer(schema: pa.Schema, groups: Sequence[Thrift], rows: int) -> bytes:
    """FileMetaData, with Arrow's own schema among it: that one knows the lists' fixed sizes."""
    nodes = [struct({4: text("schema"), 5: i32(len(schema))})]
    for field in schema:
        nodes += _nodes(field)
    arrow = base64.b64encode(schema.serialize()).decode()
    pair = struct({1: text("ARROW:schema"), 2: text(arrow)})
    parts = {1: i32(2), 2: listed(nodes), 3: i64(rows), 4: listed(groups), 5: listed([pair])}
    return struct({**parts, 6: text("tinprep")}).data


def _nodes(field: pa.Field) -> list[Thrift]:
    """The column's SchemaElements, depth first."""
    kind, _, _, narrower = physical(field)
    leaf = {1: i32(kind), 3: i32(REQUIRED), 4: text(field.name)}
    if narrower is not None:
        converted, bits, signed = narrower
        leaf |= {6: i32(converted), 10: struct({INTEGER: struct({1: i8(bits), 2: flag(signed)})})}
    if not is_list(field.type):
        return [struct(leaf)]
    group = {3: i32(REQUIRED), 4: text(field.name), 5: i32(1), 6: i32(LIST)}
    group[10] = struct({LIST: struct({})})
    repeated = struct({3: i32(REPEATED), 4: text("list"), 5: i32(1)})
    return [struct(group), repeated, struct({**leaf, 4: text("element")})]


def varint(number: int) -> bytes:
    """7 bits a byte, the lowest first; the high bit says that more follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes) -> int:
    """The number that `varint` wrote as these bytes."""
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data))


def i8(number: int) -> Thrift:
    """A number of 0..127."""
    return Thrift(3, bytes([number]))


def i32(number: int) -> Thrift:
    """A number of 0 or more, which zigzag doubles."""
    return Thrift(5, varint(number << 1))


def i64(number: int) -> Thrift:
    """A number of 0 or more, which zigzag doubles."""
    return Thrift(6, varint(number << 1))


def flag(value: bool) -> Thrift:
    """A boolean field: its type alone tells."""
    return Thrift(1 if value else 2, b"")


def text(value: str) -> Thrift:
    """A string, as UTF-8 behind its length."""
    data = value.encode()
    return Thrift(8, varint(len(data)) + data)


def listed(values: Sequence[Thrift]) -> Thrift:
    """Values of one type; an empty list is taken for one of structs."""
    kind = values[0].kind if values else 12
    count = len(values)
    head = bytes([count << 4 | kind]) if count < 15 else bytes([0xF0 | kind]) + varint(count)
    return Thrift(9, head + b"".join(value.data for value in values))


def struct(fields: dict[int, Thrift]) -> Thrift:
    """Fields by number, ascending and less than 16 apart, each behind its step and type."""
    out, last = bytearray(), 0
    for number, value in fields.items():
        out.append((number - last) << 4 | value.kind)
        out += value.data
        last = number
    return Thrift(12, bytes(out) + b"\0")
