"""The four CSV files of Alibaba: the fast reading of them, and a plain one of each line."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from fuzz.target import Target, block_bytes, numbered, written
from pipeline.readers import alibaba_columns as columns
from pipeline.readers import parsed
from pipeline.readers.alibaba_columns import Column, Kind
from pipeline.readers.alibaba_parse import Csv

_FIELD = re.compile(r' *+(?:"((?:[^"]|"")*+)"|((?!")[^,]*+))(?=,|\Z)')
_WHOLE = re.compile(r"([+-]?[0-9]+)(\.0*)?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)
_MISSING = (
    *("", "NULL", "Null", "null", "NaN", "nan", "NAN", "None", "none"),
    *("\\N", "NA", "N/A", "n/a", "<NA>"),
)
_MOST = (1 << 63) - 1


def read(name: str, layout: tuple[Column, ...], data: bytes) -> int:
    """Read the lines, and each by itself without any of the reader's code."""
    header = ",".join(column.header for column in layout).encode()
    path = written(f"{name}.csv", header + b"\n" + data)
    btags = columns.BTAGS if layout == columns.BEHAVIORS else None
    parts = list(parsed.read(Csv(layout, btags, block_bytes(data)), path))
    rows = [row for part in parts for row in part.rows.iter_rows()]
    refused = {line - 2 for part in parts for line in part.rejected["line"]}
    lines = numbered(data)
    exact = {number: _exact(line, layout) for number, line in lines}
    assert refused == {number for number, row in exact.items() if row is None}
    good = [(number, *row) for number, row in exact.items() if row is not None]
    if layout == columns.BEHAVIORS:  # only those at a time after 0
        good = [(*row[:3], *row[4:]) for row in good if row[2] > 0]
    assert rows == good, data
    return len(lines)


def _exact(line: bytes, layout: tuple[Column, ...]) -> tuple[Any, ...] | None:
    """What a line holds, None for what is refused."""
    try:
        fields = _fields(line.decode().removesuffix("\r"))
        values = [_field(text, column) for text, column in zip(fields, layout, strict=True)]
    except ValueError:
        return None
    if layout[-1].kind is Kind.LABEL and values[-2] not in (None, 1 - values[-1]):
        return None
    kept = zip(values, layout, strict=True)
    return tuple(value for value, column in kept if column.kind is not Kind.OPPOSITE)


def _fields(text: str) -> list[str]:
    """The fields of a line; ValueError if its quotes mean nothing."""
    found = [_FIELD.match(text)]
    if '"' in text and "\r" in text:
        raise ValueError
    while found[-1] is not None and found[-1].end() < len(text):
        found.append(_FIELD.match(text, found[-1].end() + 1))
    if found[-1] is None:
        raise ValueError
    parts = [match.groups() for match in found if match]
    return [
        (plain if quoted is None else quoted.replace('""', '"')).strip(" \t")
        for quoted, plain in parts
    ]


def _field(text: str, column: Column) -> Any:
    """The value of a field; ValueError if it has none."""
    if text in _MISSING:
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
    number = _WHOLE.fullmatch(text)
    if number is None or len(text) > 4_000:
        raise ValueError
    value = int(number[1])
    least = -_MOST if column.kind is Kind.SIGNED_TIME else 0
    most = {Kind.LABEL: 1, Kind.TIME: 10**11 - 1, Kind.SIGNED_TIME: 10**11 - 1}
    if not least <= value <= most.get(column.kind, _MOST):
        raise ValueError
    return value


_WORDS = (
    *(b"NULL", b",", b",,", b"\n", b"\r\n", b"\r", b"-", b"+1", b" 1", b"0000000000000000000001"),
    *(b"9223372036854775807", b"9223372036854775808", b"99999999999", b"100000000000", b"pv"),
    *(b"cart", b"fav", b"buy", b"1.5", b"1e5", b"\xc3\xa9", b"\xff", b"\0", b'"', b"\xef\xbb\xbf"),
    *(b"12345678", b"123456789", b"1" * 310, b"inf", b"nan", b"0x1f", b"1_0", b"170.0", b'""'),
    *(b'",', b',"', b" ,", b", ", b".0,", b",\\N,", b",None,", b"NaN", b"<NA>", b"e5", b"1."),
)


def _target(name: str, layout: tuple[Column, ...], *seeds: bytes) -> Target:
    return Target(
        name,
        (*seeds, b"\n".join(seeds)),
        _WORDS,
        partial(read, name, layout),
        lambda line: columns.read_line(line, layout),
    )


TARGETS = (
    _target(
        "raw_sample",
        columns.IMPRESSIONS,
        b"581738,1494137644,1,430548_1007,1,0",
        b"7,1494137645,2,,0,1\r",
    ),
    _target(
        "ad_feature",
        columns.ADS,
        b"63133,6406,83237,1,95471,170.0",
        b"5,1,9161677205,2,NULL,0.01",
    ),
    _target(
        "user_profile",
        columns.PROFILES,
        b"234,0,5,2,5,,3,0,3",
        b"523,5,2,2,2,1,3,1,NULL",
    ),
    _target(
        "behavior_log",
        columns.BEHAVIORS,
        b"558157,1493741625,pv,6250,91286",
        b"1,-5,cart,NULL,\n2,1493741626,buy,,3",
    ),
)
