"""Amazon's review lines: ours and Python's reading of them, line by line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TypeVar

from fuzz.target import Target, block_bytes, numbered, written
from pipeline.readers import parsed
from pipeline.readers.amazon_parse import Reviews
from pipeline.readers.review_lines import read_review

Found = TypeVar("Found")
_GOOD = b'{"reviewerID": "A2IBPI20UZIR0U", "asin": "0528881469", "unixReviewTime": 1370131200}'


def read(data: bytes) -> int:
    """Read the lines, and each by itself with the standard library."""
    path = written("reviews.json", b"\n" + data)  # never gzip: that is another target
    parts = list(parsed.read(Reviews(block_bytes(data)), path))
    rows = {row[0]: row[1:] for part in parts for row in part.rows.iter_rows()}
    refused = {line - 1 for part in parts for line in part.rejected["line"]}
    lines = numbered(b"\n" + data)
    assert rows.keys() | refused == {number for number, _ in lines}
    assert not rows.keys() & refused
    for number, line in lines:
        expected = decoded(line, exact)
        assert rows.get(number) == expected, (line, rows.get(number), expected)
    return len(lines)


def decoded(line: bytes, read: Callable[[str], Found | None]) -> Found | None:
    """What a reader says of a line; None if it is not UTF-8."""
    try:
        return read(line.decode())
    except UnicodeDecodeError:
        return None


def exact(text: str) -> tuple[str, str, int] | None:
    """The review that a line holds, None for none, by the standard library."""
    try:
        value = json.loads(text, parse_constant=lambda _: None, parse_int=whole)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    user, item, time = (value.get(key) for key in ("reviewerID", "asin", "unixReviewTime"))
    user, item = (str(key) if type(key) is int else key for key in (user, item))
    for key in (user, item):
        if not isinstance(key, str) or not key or not storable(key):
            return None
    if isinstance(time, str):
        time = int(time) if re.fullmatch("-?[0-9]{1,20}", time) else None
    if time is None or isinstance(time, bool | list | dict) or not 0 <= time < 10**11:
        return None
    return (user, item, int(time)) if time == int(time) else None


def whole(text: str) -> int | float:
    """An integer, infinite if it has more than 20 digits."""
    return int(text) if len(text) <= 20 else float("inf")


def storable(text: str) -> bool:
    """Whether there is no lone surrogate in a text."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


TARGETS = (
    Target(
        "reviews",
        seeds=(
            _GOOD,
            b"\n".join(
                [_GOOD, b"{", b"", _GOOD.replace(b"A2", b'\\u00e9\\"'), b"[1, {}]", b"\xff"]
            ),
            _GOOD[:-1] + b', "helpful": [2, 3], "overall": 5.0, "x": {"y": null}, "asin": true}\r',
        ),
        words=(
            *(
                b'"reviewerID": ',
                b'"asin": ',
                b'"unixReviewTime": ',
                b"null",
                b"true",
                b"1e5",
                b"-0",
            ),
            *(
                b"9223372036854775807",
                b"9223372036854775808",
                b"\\ud800",
                b"\\u0041",
                b"NaN",
                b"\n",
            ),
            *(
                b"[[[[[[[[",
                b'{"a":',
                b"}",
                b", ",
                b'"',
                _GOOD,
                b"\xed\xa0\x80",
                b"\r\n",
                b"\xef\xbb\xbf",
            ),
        ),
        read=read,
        alone=read_review,
    ),
)
