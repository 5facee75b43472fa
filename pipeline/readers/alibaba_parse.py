"""The raw Alibaba files (tianchi 56) as tables, block by block, with a reason for every refusal.

`alibaba_columns.read_line` defines what a line says. Arrow reads lines by the thousand; where it
cannot, or might see something else in them, they are read one by one. So the result is the same
whatever the size of the blocks, the number of threads and wherever the odd lines are.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import csv

from pipeline.readers.alibaba_columns import BTAGS, WHOLE_LIMIT, Column, Kind, read_line
from pipeline.readers.lines import BLOCK_BYTES, Block, Part, blocks
from pipeline.readers.parsed import (
    MILLISECONDS_FROM,
    SHOWN,
    TOO_LONG,
    Parsed,
    Refused,
    read,
    read_alone,
)
from pipeline.readers.values import NULLS
from schemas.errors import InputError

# Arrow would take Ctrl-C and SIGTERM over while it reads; `schemas.interrupts` handles them.
pa.enable_signal_handlers(False)

# Lines that Arrow does not read are halved, and tried again, down to this size.
_ONE_BY_ONE_BYTES = 1 << 15
_TYPES = {Kind.LABEL: pl.Int8, Kind.BTAG: pl.UInt8, Kind.TEXT: pl.String, Kind.DECIMAL: pl.Float64}
_ARROW_TYPES = {
    Kind.LABEL: pa.int8(),
    Kind.BTAG: pa.dictionary(pa.int32(), pa.string()),
    Kind.TEXT: pa.large_string(),
    Kind.DECIMAL: pa.float64(),
}
# The least and the most that a whole number may be.
_BOUNDS = {
    Kind.WHOLE: (0, WHOLE_LIMIT - 1),
    Kind.TIME: (0, MILLISECONDS_FROM - 1),
    Kind.SIGNED_TIME: (1 - WHOLE_LIMIT, MILLISECONDS_FROM - 1),
    Kind.LABEL: (0, 1),
}
# A field in quotes that holds neither a quote nor a comma; a whole number with a fraction of zeros.
_QUOTED = re.compile(rb'(?<![^,\n])"([^",\n]*)"(?![^,\n])')
_FRACTION = re.compile(rb"(?<![^,\n])(-?[0-9]+)\.0*(?![^,\n])")


@dataclass(frozen=True)
class Csv:
    """The reader of one of the raw files; see `parsed.Reader`.

    Attributes:
        layout: its columns, in their order.
        btags: the kinds of behaviour that are wanted, of those at a time above 0; their column is
            not kept. None where all lines are.
        block_bytes: as in `pipeline.readers.lines.blocks`.
    """

    layout: tuple[Column, ...]
    btags: tuple[str, ...] | None = None
    block_bytes: int = BLOCK_BYTES

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """As `Reader.columns`."""
        kept = [c for c in self.layout if c.kind not in (Kind.OPPOSITE, Kind.BTAG)]
        return {column.name: _ARROW_TYPES.get(column.kind, pa.int64()) for column in kept}

    def blocks(self, part: Part) -> Generator[Block]:
        """As `Reader.blocks`."""
        return _data(part, self.layout, self.block_bytes)

    def parse(self, file: str, block: Block) -> Parsed:
        """As `Reader.parse`."""
        refused = Refused(file)
        found = _rows(block, self.layout, refused)
        rows = found.with_columns(pl.col("line") - 1).rename({"line": "row"})
        if self.btags is not None:
            wanted = rows["btag"].is_in([BTAGS.index(name) for name in self.btags])
            rows = rows.filter(wanted & (rows["time"] > 0)).drop("btag")
        return Parsed(rows, refused.frame(), block.lines, found.height - rows.height)


def read_lookup(
    layout: tuple[Column, ...], path: Path, wanted: pl.Series | None = None
) -> Generator[Parsed]:
    """Read a file of ads or profiles, whichever are wanted: what is there twice gives two rows."""
    return read(Csv(layout), path)


def _rows(block: Block, columns: tuple[Column, ...], refused: Refused) -> pl.DataFrame:
    """The rows of a block in the file's order: line, its number in the file; what is kept."""
    if block.too_long is not None:
        refused.add(block.first_line, TOO_LONG, block.too_long)
    kept = [column for column in columns if column.kind is not Kind.OPPOSITE]
    schema = {"line": pl.Int64} | {c.name: _TYPES.get(c.kind, pl.Int64) for c in kept}
    pieces = list(_pieces(block.data, block.first_line, block.lines, columns, schema, refused))
    return pl.concat(pieces) if pieces else pl.DataFrame(schema=schema)


def _pieces(
    data: bytes,
    first: int,
    lines: int,
    columns: tuple[Column, ...],
    schema: dict[str, Any],
    refused: Refused,
) -> Iterator[pl.DataFrame]:
    """Read whole lines, of which `first` is the number of the first."""
    if not data:
        return
    rows = _at_once(data, lines, columns)
    if rows is not None:
        numbers = np.arange(first, first + lines)
        yield rows.insert_column(0, pl.Series("line", numbers))
    elif len(data) <= _ONE_BY_ONE_BYTES or lines == 1:
        each = enumerate(data.split(b"\n")[:-1], first)
        read = read_alone(each, partial(read_line, columns=columns), refused)
        yield pl.DataFrame([(number, *line) for number, line in read], schema, orient="row")
    else:
        end = (data.rfind(b"\n", 0, len(data) // 2) + 1) or (data.index(b"\n") + 1)
        before = data.count(b"\n", 0, end)
        yield from _pieces(data[:end], first, before, columns, schema, refused)
        yield from _pieces(data[end:], first + before, lines - before, columns, schema, refused)


def _at_once(data: bytes, lines: int, columns: tuple[Column, ...]) -> pl.DataFrame | None:
    """Every line through Arrow's reader; None where `read_line` might say anything else."""
    text = any(column.kind is Kind.TEXT for column in columns)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if b'"' in data:
        data = _QUOTED.sub(rb"\1", data)
    if b"." in data and not text:
        data = _FRACTION.sub(rb"\1", data)
    # Arrow takes a lone carriage return for the end of a line, and 0x1f for a number; around text
    # it leaves blanks alone.
    doubtful = [b"\r", b'"', *([b" ", b"\t"] if text else [])]
    doubtful += [b"0" + x for x in (b"x", b"X") if x in data]
    if not data.isascii() or any(odd in data for odd in doubtful):
        return None
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(
                use_threads=False, block_size=len(data), column_names=[c.name for c in columns]
            ),
            csv.ParseOptions(quote_char=False, double_quote=False),
            csv.ConvertOptions(
                column_types={c.name: _ARROW_TYPES.get(c.kind, pa.int64()) for c in columns},
                null_values=NULLS,
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != lines:  # Arrow leaves empty lines out
        return None
    frame = pl.DataFrame({c.name: _series(table[c.name].combine_chunks(), c) for c in columns})
    if not all(_holds(frame, column) for column in columns):
        return None
    return frame.select(c.name for c in columns if c.kind is not Kind.OPPOSITE)


def _series(array: pa.Array, column: Column) -> pl.Series:
    """A column as Polars has it; btags as codes, null where there is none for it."""
    if column.kind is Kind.BTAG:
        codes = {name: code for code, name in enumerate(BTAGS)}
        known = pa.array([codes.get(name) for name in array.dictionary.to_pylist()], pa.uint8())
        array = known.take(array.indices)
    return pl.Series(array)


def _holds(frame: pl.DataFrame, column: Column) -> bool:
    """Whether a column holds only what it may."""
    values = frame[column.name]
    if values.null_count() and not column.nullable:
        return False
    if column.kind is Kind.DECIMAL:
        return bool(values.is_finite().all())
    if column.kind is Kind.OPPOSITE:
        return bool((values + frame["label"] == 1).all())
    least, most = _BOUNDS.get(column.kind, (None, None))
    return least is None or bool(values.is_between(least, most).all())


def _data(part: Part, columns: tuple[Column, ...], block_bytes: int) -> Generator[Block]:
    """The blocks of a part without the file's header, which must be the one of the columns."""
    expected = ",".join(column.header for column in columns)
    with closing(blocks(part, block_bytes)) as stream:
        if part.begin:
            yield from stream
            return
        block = next(stream, None)
        if block is None:
            raise InputError(
                "The raw file is empty.",
                where=part.path,
                line=1,
                expected=f"the header {expected}",
                got="no bytes",
                do="download it again",
            )
        data = block.data if block.too_long is None else block.too_long
        end = data.find(b"\n") + 1 or len(data)
        header = data[:end].decode("utf-8-sig", errors="replace")
        if [name.strip(' \t\r\n"') for name in header.split(",")] != expected.split(","):
            raise InputError(
                "The header of the raw file is not the one it should have.",
                where=part.path,
                line=1,
                expected=f"{expected} (in this order)",
                got=header[:SHOWN].rstrip("\r\n") or "an empty line",
                do="check that it is the right file of the data set, whole and unchanged",
            )
        if block.lines > 1:
            yield Block(block.first_line + 1, data[end:], block.lines - 1)
        yield from stream
