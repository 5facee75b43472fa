"""Amazon's meta lines: our reading of them, and `ast.literal_eval`'s."""

from __future__ import annotations

import ast
import warnings

import polars as pl

from fuzz.target import Target, block_bytes, numbered, written
from pipeline.sources.amazon_parse import read_meta
from pipeline.sources.python_literal import read_item

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
        exact = _exact(line)
        assert (exact is None) == (number in refused), (line, exact)
        kept = exact if exact is not None and exact[0] in wanted else None
        assert rows.get(number) == kept, (line, rows.get(number), kept)
    return len(lines)


def _exact(line: bytes) -> tuple[str, str | None] | None:
    """The item that a line holds, None for none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(line.decode())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    asin = value.get("asin") if isinstance(value, dict) else None
    if not asin or not _is_text(asin):
        return None
    paths = value.get("categories", [])
    if not isinstance(paths, list):
        return None
    for path in paths:
        if not isinstance(path, list) or not all(map(_is_text, path)):
            return None
    return asin, paths[-1][-1] if paths and paths[-1] else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


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
