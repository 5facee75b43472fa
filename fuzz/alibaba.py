"""The four CSV files of Alibaba: the fast reading of them, and a plain one of each line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fuzz.target import Target, block_bytes, numbered, written
from pipeline.sources import alibaba_columns as columns
from pipeline.sources.alibaba_columns import Column, Kind
from pipeline.sources.alibaba_parse import (
    behavior_blocks,
    parse_behaviors,
    read_ads,
    read_impressions,
    read_profiles,
)

_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_OPPOSITE = [re.compile(rf"0*{digit}(\.0*)?", re.ASCII) for digit in (1, 0)]
_MOST = (1 << 63) - 1


def read(
    name: str, layout: tuple[Column, ...], reader: Callable[[Path, int], Iterator[Any]], data: bytes
) -> int:
    """Read the lines, and each by itself without any of the reader's code."""
    header = ",".join(column.header for column in layout).encode()
    path = written(f"{name}.csv", header + b"\n" + data)
    parts = list(reader(path, block_bytes(data)))
    rows = [row for part in parts for row in part.rows.iter_rows()]
    refused = {line - 2 for part in parts for line in part.rejected["line"]}
    lines = numbered(data)
    exact = {number: _exact(line, layout) for number, line in lines}
    assert refused == {number for number, row in exact.items() if row is None}
    good = [(number, *row) for number, row in exact.items() if row is not None]
    if name == "behavior_log":  # has no line numbers, and only those at a time after 0
        assert rows == [row[1:] for row in good if row[2] > 0], data
    else:
        start = 0 if name == "raw_sample" else 1  # what the header counts
        assert rows == [(row[0] + start, *row[1:]) for row in good], data
    return len(lines)


def _read_behaviors(path: Path, size: int) -> Iterator[Any]:
    return (parse_behaviors(b, path.name, columns.BTAGS) for b in behavior_blocks(path, size))


def _exact(line: bytes, layout: tuple[Column, ...]) -> tuple[Any, ...] | None:
    """What a line holds, None for what is refused."""
    try:
        fields = line.decode().removesuffix("\r").split(",")
    except UnicodeDecodeError:
        return None
    if len(fields) != len(layout):
        return None
    given = dict(zip(layout, fields, strict=True))
    opposite = [given.pop(c) for c in layout if c.kind is Kind.OPPOSITE]
    try:
        read = tuple(_field(text, column) for column, text in given.items())
    except ValueError:
        return None
    # The label is the last column where there is one.
    agrees = all(text in ("", "NULL") or _OPPOSITE[read[-1]].fullmatch(text) for text in opposite)
    return read if agrees else None


def _field(text: str, column: Column) -> Any:
    """The value of a field; ValueError if it has none."""
    if text in ("", "NULL"):
        if column.nullable:
            return None
        raise ValueError
    if column.kind is Kind.TEXT:
        return text
    if column.kind is Kind.BTAG:
        return ("buy", "cart", "fav", "pv").index(text)
    if column.kind is Kind.DECIMAL:
        if not _DECIMAL.fullmatch(text) or float(text) in (float("inf"), float("-inf")):
            raise ValueError
        return float(text)
    if not _WHOLE.fullmatch(text) or len(text) > 4_000:
        raise ValueError
    value = int(text)
    least = -_MOST if column.kind is Kind.SIGNED_TIME else 0
    most = {Kind.LABEL: 1, Kind.TIME: 10**11 - 1, Kind.SIGNED_TIME: 10**11 - 1}
    if not least <= value <= most.get(column.kind, _MOST):
        raise ValueError
    return value


_WORDS = (
    *(b"NULL", b",", b",,", b"\n", b"\r\n", b"\r", b"-", b"+1", b" 1", b"0000000000000000000001"),
    *(b"9223372036854775807", b"9223372036854775808", b"99999999999", b"100000000000", b"pv"),
    *(b"cart", b"fav", b"buy", b"1.5", b"1e5", b"\xc3\xa9", b"\xff", b"\0", b'"', b"\xef\xbb\xbf"),
    *(b"12345678", b"123456789", b"1" * 310, b"inf", b"nan", b"0x1f", b"1_0", b"170.0"),
)


def _target(name: str, layout: tuple[Column, ...], reader: Any, *seeds: bytes) -> Target:
    return Target(
        name,
        (*seeds, b"\n".join(seeds)),
        _WORDS,
        partial(read, name, layout, reader),
        lambda line: columns.read_line(line, layout),
    )


TARGETS = (
    _target(
        "raw_sample",
        columns.IMPRESSIONS,
        read_impressions,
        b"581738,1494137644,1,430548_1007,1,0",
        b"7,1494137645,2,,0,1\r",
    ),
    _target(
        "ad_feature",
        columns.ADS,
        read_ads,
        b"63133,6406,83237,1,95471,170.0",
        b"5,1,9161677205,2,NULL,0.01",
    ),
    _target(
        "user_profile",
        columns.PROFILES,
        read_profiles,
        b"234,0,5,2,5,,3,0,3",
        b"523,5,2,2,2,1,3,1,NULL",
    ),
    _target(
        "behavior_log",
        columns.BEHAVIORS,
        _read_behaviors,
        b"558157,1493741625,pv,6250,91286",
        b"1,-5,cart,NULL,\n2,1493741626,buy,,3",
    ),
)
