"""A block of lines of a raw Alibaba file as rows, piece by piece, and the lines that are refused.

Each piece goes through the fast reader, and the lines of which that is not sure through the exact
one; then the rows are put together in the file's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.lines import Block
from pipeline.sources.alibaba_columns import Column, Kind, read_line
from pipeline.sources.alibaba_scan import LEAD, Mask, Places, Values, scan
from pipeline.sources.parsed import NOT_UTF8, TOO_LONG, Refused

_PIECE_BYTES = 1 << 19  # scanned at once: what is made of it fits a core's cache
_TYPES = {Kind.LABEL: pl.Int8, Kind.BTAG: pl.UInt8, Kind.TEXT: pl.String, Kind.DECIMAL: pl.Float64}


@dataclass(frozen=True)
class Piece:
    """What is read of consecutive lines.

    Attributes:
        first: the number in the file of the first line.
        lines: (r,) the numbers, from `first`, of the lines behind `values`, or None if they are
            0, 1, ...
        values: (r,) for each column, as in `Scan`.
        nulls: (r,) for each column or None, as in `Scan`.
        odd: the other lines: the number in the file, then a value for each column.
    """

    first: int
    lines: Places | None
    values: list[Values]
    nulls: list[Mask | None]
    odd: list[tuple[Any, ...]]

    def only(self, index: Places, odd: list[tuple[Any, ...]]) -> Piece:
        """The piece with the r' lines at `index` only, and other odd ones."""
        return Piece(
            self.first,
            index if self.lines is None else self.lines[index],
            [value[index] for value in self.values],
            [None if null is None else null[index] for null in self.nulls],
            odd,
        )


def as_frame(
    pieces: list[Piece],
    columns: tuple[Column, ...],
    number: str,
    start: int,
    *,
    keep_line: bool = True,
) -> pl.DataFrame:
    """The rows of a block in the file's order."""
    read = [column for column in columns if column.kind is not Kind.OPPOSITE]
    schema = {column.name: _TYPES.get(column.kind, pl.Int64) for column in read}
    frame = pl.DataFrame(schema=schema)
    if pieces:
        frame = pl.DataFrame(
            [
                _series([piece.values[k] for piece in pieces], [piece.nulls[k] for piece in pieces])
                .alias(name)
                .cast(dtype)
                for k, (name, dtype) in enumerate(schema.items())
            ]
        )
    odd = [row for piece in pieces for row in piece.odd]
    if not keep_line and not odd:
        return frame
    lines = [
        p.first - start + (np.arange(len(p.values[0])) if p.lines is None else p.lines)
        for p in pieces
    ]
    numbers = np.concatenate(lines) if lines else np.empty(0, np.int64)
    frame = frame.select(pl.Series(number, numbers, dtype=pl.Int64), pl.all())
    if odd:
        rest = pl.DataFrame(odd, {number: pl.Int64, **schema}, orient="row")
        rest = rest.with_columns(pl.col(number) - start)
        frame = pl.concat([frame, rest]).sort(number)
    return frame if keep_line else frame.drop(number)


def _series(values: list[Values], nulls: list[Mask | None]) -> pl.Series:
    """The pieces of a column as one series."""
    series = [value for value in values if isinstance(value, pl.Series)]
    if series:
        return pl.concat(series)
    joined = np.concatenate([value for value in values if isinstance(value, np.ndarray)])
    mask = None
    if any(null is not None for null in nulls):
        mask = np.concatenate(
            [
                np.zeros(len(v), np.bool_) if null is None else null
                for v, null in zip(values, nulls, strict=True)
            ]
        )
    whole = pl.from_arrow(pa.array(joined, mask=mask))
    assert isinstance(whole, pl.Series)
    return whole


def in_pieces(block: Block, columns: tuple[Column, ...], refused: Refused) -> Iterator[Piece]:
    """Read a block bit by bit."""
    if block.too_long is not None:
        refused.add(block.first_line, TOO_LONG, block.too_long)
    data, begin, first = block.data, 0, block.first_line
    while begin < len(data):
        end = data.rfind(b"\n", begin, begin + _PIECE_BYTES) + 1
        end = end or data.index(b"\n", begin) + 1
        text = np.zeros(LEAD + end - begin, np.uint8)
        text[LEAD:] = np.frombuffer(data, np.uint8, end - begin, begin)
        scanned = scan(text, columns)
        odd: list[tuple[Any, ...]] = []
        if scanned.sure is not None:
            odd = list(_exact(data[begin:end], scanned.sure, first, columns, refused))
        yield Piece(first, scanned.sure, scanned.values, scanned.nulls, odd)
        begin, first = end, first + scanned.lines


def _exact(
    data: bytes, sure: Places, first: int, columns: tuple[Column, ...], refused: Refused
) -> Iterator[tuple[Any, ...]]:
    """All lines but the `sure` ones through the exact reader, each with its number in the file."""
    lines = data.split(b"\n")[:-1]
    for number in np.setdiff1d(np.arange(len(lines)), sure, assume_unique=True).tolist():
        line = lines[number]
        if not line.strip(b" \t\r"):
            continue
        try:
            found = read_line(line.decode(), columns)
        except UnicodeDecodeError:
            found = NOT_UTF8
        if isinstance(found, str):
            refused.add(first + number, found, line)
        else:
            yield first + number, *found
