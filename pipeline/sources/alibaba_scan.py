"""Many lines of a raw Alibaba file at once: byte arithmetic that says of which lines it is sure.

Every byte of a line is accounted for: separators are found first, then each field is loaded as
words of eight bytes, and its digits are checked and summed within the word. No CSV library takes
part, so nothing is guessed or trimmed; what is not plainly good is left to
`alibaba_columns.read_line`, and what is good has the value that it would give.

Legend: n lines with the right number of columns; `text` is a piece of whole lines after `LEAD`
zero bytes, so that the words that end in its first field lie within it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipeline.sources.alibaba_columns import (
    BTAGS,
    MISSING,
    WHOLE_LIMIT,
    Column,
    Kind,
)
from pipeline.sources.parsed import MILLISECONDS_FROM

LEAD = 24

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.generic] | pl.Series

_WORD = 8
_MOST_DIGITS = 19  # of a number below 2^63; more, zeros before it, are left to the exact reader
_ZEROS = np.uint64(0x3030303030303030)
_TO_HIGH_BIT = np.uint64(0x7676767676767676)  # added to a byte, sets its high bit from 10 on
_HIGH_BITS = np.uint64(0x8080808080808080)
# Neighbouring digits, pairs and fours are joined by one multiplication each.
_JOINS = tuple(
    (np.uint64((10**digits << 8 * digits) + 1), np.uint64(8 * digits), np.uint64(mask))
    for digits, mask in ((1, 0x00FF00FF00FF00FF), (2, 0x0000FFFF0000FFFF), (4, 0xFFFFFFFF))
)
# The bytes of a word that a field of 0..8 bytes takes, if the word ends with it.
_KEEP = np.array([(1 << 64) - (1 << 8 * (_WORD - k)) for k in range(_WORD + 1)], np.uint64)
_DECIMAL = r"^-?[0-9]{1,300}(?:\.[0-9]{1,300})?$"
_NUMBERS = (Kind.WHOLE, Kind.TIME, Kind.SIGNED_TIME, Kind.LABEL)


@dataclass(frozen=True)
class Scan:
    """What the lines of a piece hold, as far as it is sure.

    Attributes:
        lines: how many lines the piece has.
        sure: the numbers, in the piece, of the r lines that are read here; None if it is all.
        values: for each column that is kept, (r,) int64 (a label too), uint8 (btag), or a
            series of strings or floats.
        nulls: for each of those, (r,) where the value is missing (whatever `values` has there),
            or None where none is, or the series has its own nulls.
    """

    lines: int
    sure: Places | None
    values: list[Values]
    nulls: list[Mask | None]


def scan(text: Bytes, columns: tuple[Column, ...]) -> Scan:
    """Read a piece.

    Args:
        text: `LEAD` zero bytes, then whole lines, each ending in a newline.
        columns: what the lines should hold.
    """
    lines, places, begin, ends = _lay_out(text, len(columns))
    if not len(begin):
        none = [_nothing(column) for column in columns if column.kind is not Kind.OPPOSITE]
        return Scan(lines, np.empty(0, np.int64), none, [None] * len(none))
    words = np.ndarray((len(text) - _WORD + 1,), "<u8", text, 0, (1,))
    begins = [begin, *(ends[:, number] + 1 for number in range(len(columns) - 1))]
    fields = [(b, ends[:, i], c) for i, (b, c) in enumerate(zip(begins, columns, strict=True))]

    # In text nothing else looks for bytes that may not be UTF-8.
    sure = np.ones(len(begin), np.bool_)
    if any(c.kind is Kind.TEXT for c in columns) and text.max() > 0x7F:
        sure = np.maximum.reduceat(text, begin) <= 0x7F
    found: dict[str, tuple[Values, Mask | None]] = {}
    for first, end, column in fields:
        if column.kind in _NUMBERS or column.kind is Kind.BTAG:
            value, good = (_btag if column.kind is Kind.BTAG else _number)(words, first, end)
            if column.kind in (Kind.TIME, Kind.SIGNED_TIME):
                good &= value < MILLISECONDS_FROM
            elif column.kind is Kind.LABEL:
                good &= value <= 1
            null = None
            if column.nullable and not good.all():
                null = _missing(words, first, end)
                good |= null
            sure &= good
            found[column.name] = value, null
        elif column.kind is Kind.DECIMAL:
            index = np.flatnonzero(sure)
            like = _slices(text, first[index], end[index]).str.contains(_DECIMAL).to_numpy()
            sure[index] = like | _missing(words, first, end)[index]
    for first, end, column in fields:
        if column.kind is Kind.OPPOSITE:
            value, good = _number(words, first, end)
            (label,) = (found[c.name][0] for c in columns if c.kind is Kind.LABEL)
            good &= (value <= 1) & np.not_equal(value, label)
            sure &= good | _missing(words, first, end)

    kept: Places | None = None if sure.all() else np.flatnonzero(sure)
    values: list[Values] = []
    nulls: list[Mask | None] = []
    for first, end, column in fields:
        if column.kind in (Kind.TEXT, Kind.DECIMAL):
            first, end = (first, end) if kept is None else (first[kept], end[kept])
            series = _slices(text, first, end)
            series = series.set(series.is_in(MISSING), None)
            if column.kind is Kind.DECIMAL:
                texts = series.to_list()
                series = pl.Series(
                    [None if t is None else float(t) for t in texts], dtype=pl.Float64
                )
            values.append(series)
            nulls.append(None)
        elif column.kind is not Kind.OPPOSITE:
            whole, null = found[column.name]
            values.append(whole if kept is None else whole[kept])
            nulls.append(null if kept is None or null is None else null[kept])
    if kept is not None and places is not None:
        kept = places[kept]
    return Scan(lines, places if kept is None else kept, values, nulls)


def _lay_out(text: Bytes, columns: int) -> tuple[int, Places | None, Places, Places]:
    """Where the fields are of the n lines with the right number of columns.

    Returns:
        The number of all lines; (n,) the numbers of those n, or None if they are all; (n,) where
        they begin; (n, columns) where their fields end. A carriage return before the newline is
        not part of the last field.
    """
    newline = text == ord("\n")
    lines = int(np.count_nonzero(newline))
    marks = np.flatnonzero(newline | (text == ord(",")))
    begin = np.empty(lines, np.int64)
    begin[:1] = LEAD
    places = None
    if len(marks) == lines * columns and newline[marks[columns - 1 :: columns]].all():
        ends = marks.reshape(lines, columns)
        np.add(ends[:-1, -1], 1, out=begin[1:])
    else:
        rows = np.flatnonzero(newline[marks])
        np.add(marks[rows[:-1]], 1, out=begin[1:])
        places = np.flatnonzero(np.diff(rows, prepend=-1) == columns)
        ends = marks[rows[places, None] + np.arange(1 - columns, 1)]
        begin = begin[places]
    if (text == ord("\r")).any():
        ends[:, -1] -= text[ends[:, -1] - 1] == ord("\r")
    return lines, places, begin, np.asfortranarray(ends)


def _nothing(column: Column) -> Values:
    """No values of a column."""
    if column.kind in (Kind.TEXT, Kind.DECIMAL):
        return pl.Series(dtype=pl.String if column.kind is Kind.TEXT else pl.Float64)
    return np.empty(0, np.uint8 if column.kind is Kind.BTAG else np.int64)


def _number(words: Words, begin: Places, end: Places) -> tuple[Places, Mask]:
    """(n,) the whole numbers that the fields hold, and (n,) where they do, without a sign."""
    length = end - begin
    longest = int(length.max())
    value, bad = _eight(words[end - _WORD], length)
    for k in range(1, 3):
        if longest > k * _WORD:
            high, wrong = _eight(words[end - (k + 1) * _WORD], length - k * _WORD)
            value += high * np.uint64(10 ** (k * _WORD))
            bad |= wrong
    good = (bad == 0) & (length > 0)
    if longest >= _MOST_DIGITS:
        good &= (length <= _MOST_DIGITS) & (value < WHOLE_LIMIT)
    return value.view(np.int64), good


def _eight(word: Words, length: Places) -> tuple[Words, Words]:
    """(n,) the numbers that the last digits of words make, and (n,) 0 where they are digits.

    Args:
        word: (n,) is written over.
        length: (n,) how many of the word's last bytes count; below 0 is as 0, over 8 as 8.
    """
    word ^= _ZEROS
    word &= _KEEP.take(length, mode="clip")
    # A byte that is no digit is 10 or more now. A carry comes only from a byte that is wrong too.
    bad = word + _TO_HIGH_BIT
    bad |= word
    bad &= _HIGH_BITS
    for factor, shift, mask in _JOINS:
        word *= factor
        word >>= shift
        word &= mask
    return word, bad


def _btag(words: Words, begin: Places, end: Places) -> tuple[Bytes, Mask]:
    """(n,) the index in `BTAGS` of each field, and (n,) where it has one."""
    key = _short(words, begin, end)
    code = np.zeros(len(key), np.uint8)
    for index, btag in enumerate(BTAGS):
        code += (key == _key(btag)).view(np.uint8) * np.uint8(index + 1)
    code -= np.uint8(1)
    return code, code < len(BTAGS)


def _missing(words: Words, begin: Places, end: Places) -> Mask:
    """(n,) where a field stands for a missing value."""
    key = _short(words, begin, end)
    missing: Mask = np.isin(key, [_key(text) for text in MISSING])
    return missing


def _short(words: Words, begin: Places, end: Places) -> Words:
    """(n,) a word for each field that equals `_key` of a text only if the field is that text.

    The field's last bytes, and in the lowest byte, which a field of less than eight leaves free,
    its length. In a longer field that byte has the bit 8 of the length, or a higher one, or is
    not free and then differs too: it is at least 8.
    """
    length = end - begin
    key: Words = words[end - _WORD] & _KEEP.take(length, mode="clip")
    key |= np.minimum(length, _WORD).view(np.uint64)
    return key


def _key(text: str) -> np.uint64:
    """The word of a text of less than eight bytes."""
    word = int.from_bytes(text.encode(), "little") << 8 * (_WORD - len(text))
    return np.uint64(word | len(text))


def _slices(text: Bytes, begin: Places, end: Places) -> pl.Series:
    """(n,) the fields as strings; all must be ASCII, or at least UTF-8."""
    offsets = np.stack([begin, end], axis=1).ravel()
    array = pa.LargeStringArray.from_buffers(
        max(len(offsets) - 1, 0), pa.py_buffer(offsets), pa.py_buffer(text)
    )
    # Taking copies them, so that the piece is not kept for its strings.
    series = pl.from_arrow(array.take(pa.array(np.arange(0, len(offsets), 2))))
    assert isinstance(series, pl.Series)
    return series
