"""Amazon's review lines: Polars' and Python's reading of them, line by line."""

from __future__ import annotations

import json
from typing import Any

from fuzz.target import Target, block_bytes, numbered, written
from pipeline.sources.amazon_parse import read_reviews
from pipeline.sources.review_json import read_review

_GOOD = b'{"reviewerID": "A2IBPI20UZIR0U", "asin": "0528881469", "unixReviewTime": 1370131200}'


def read(data: bytes) -> int:
    """Read the lines, and each by itself with the standard library."""
    path = written("reviews.json", b"\n" + data)  # never gzip: that is another target
    parts = list(read_reviews(path, block_bytes(data)))
    rows = {row[0]: row[1:] for part in parts for row in part.rows.iter_rows()}
    refused = {line - 1 for part in parts for line in part.rejected["line"]}
    lines = numbered(b"\n" + data)
    assert rows.keys() | refused == {number for number, _ in lines}
    assert not rows.keys() & refused
    for number, line in lines:
        expected = _exact(line)
        assert rows.get(number) == expected, (line, rows.get(number), expected)
    return len(lines)


def _exact(line: bytes) -> tuple[str, str, int] | None:
    """The review that a line holds, None for none."""
    try:
        value = json.loads(
            line.decode(), object_pairs_hook=_first, parse_constant=_refuse, parse_int=_whole
        )
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    user, item, time = (value.get(key) for key in ("reviewerID", "asin", "unixReviewTime"))
    user, item = (str(key) if type(key) is int else key for key in (user, item))
    for key in (user, item):
        if not isinstance(key, str) or not key or (not key.isascii() and not _storable(key)):
            return None
    return (user, item, time) if type(time) is int and 0 <= time < 10**11 else None


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found


def _refuse(name: str) -> None:
    raise ValueError(name)


def _whole(text: str) -> int | float:
    return int(text) if len(text) <= 20 else float("inf")


def _storable(text: str) -> bool:
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
