"""Amazon's meta lines: our reading of them, and the standard library's."""

from __future__ import annotations

import ast
import json
import re
import warnings
from contextlib import suppress
from typing import Any

import polars as pl

from fuzz.reviews import decoded, storable, whole
from fuzz.target import Target, block_bytes, numbered, written
from pipeline.readers.amazon_parse import read_meta
from pipeline.readers.meta_lines import read_item

_GOOD = (
    b"{'asin': '0528881469', 'title': \"it's\", 'price': 12.5, 'related': {'also': ['a', 'b']}, "
    b"'salesRank': {'Books': 7}, 'categories': [['A', 'B'], ['Caf\\xe9 \\u2028']]}"
)
_WANTED = pl.Series(["0528881469", "B1", "B2", "x"])


def read(data: bytes) -> int:
    """Read the lines, and each by itself with the standard library."""
    path = written("meta.json", b"\n" + data)  # never gzip: that is another target
    parts = list(read_meta(path, _WANTED, block_bytes(data)))
    rows = {row[0]: row[1:] for part in parts for row in part.rows.iter_rows()}
    refused = {line - 1 for part in parts for line in part.rejected["line"]}
    lines = numbered(b"\n" + data)
    wanted = set(_WANTED)
    for number, line in lines:
        expected = decoded(line, exact)
        assert (expected is None) == (number in refused), (line, expected)
        kept = expected if expected is not None and expected[0] in wanted else None
        assert rows.get(number) == kept, (line, rows.get(number), kept)
    return len(lines)


def exact(text: str) -> tuple[str, str | None] | None:
    """The item that a line holds, None for none, by the standard library."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = _value(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    asin = value.get("asin") if isinstance(value, dict) else None
    asin = str(asin) if type(asin) is int else asin
    if not asin or not _is_text(asin):
        return None
    paths = value.get("categories")
    paths = value.get("category") if paths is None else paths
    if paths is None or paths == []:
        return asin, None
    if not isinstance(paths, list):
        return None
    if all(map(_is_text, paths)):
        return asin, paths[-1]
    if not all(isinstance(path, list) and all(map(_is_text, path)) for path in paths):
        return None
    return asin, paths[-1][-1] if paths[-1] else None


def _value(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text, parse_constant=lambda _: None, parse_int=whole)
    with suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    names = {"null": "None", "nan": "None", "true": "True", "false": "False", "inf": "1e999"}
    for name, ours in names.items():
        text = re.sub(rf"(?<![\w'\"]){name}(?![\w'\"])", ours, text)
    return ast.literal_eval(text)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and storable(value)


TARGETS = (
    Target(
        "meta",
        seeds=(
            _GOOD,
            b"\n".join(
                [b"{'asin': 'B1'}", _GOOD, b"", b"{'asin': 5}", b"__import__('os').system('x')"]
            ),
            b"{'categories': [[\"a'b\"], []], 'text': \"'categories': [['No']]\", 'asin': 'B2'}\r",
        ),
        words=(
            *(
                b"'asin': ",
                b"'categories': ",
                b"[['",
                b"']]",
                b", ",
                b"': ",
                b"None",
                b"True",
                b"u'",
            ),
            *(
                b"b'",
                b"'''",
                b"\\x27",
                b"\\'",
                b"\\N{DASH}",
                b"\\ud800",
                b"1_0",
                b"00",
                b"1j",
                b"()",
            ),
            *(
                b"lambda: ",
                b"__import__('os')",
                b"{**{}}",
                b"#",
                b"\n",
                b"\\\n",
                b" + ",
                b"f'{1}'",
                _GOOD,
            ),
        ),
        read=read,
        alone=read_item,
    ),
)
