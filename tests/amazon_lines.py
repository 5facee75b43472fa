"""What the readers of raw Amazon files read, and what the exact readers say of each line."""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import Any

from pipeline.sources.parsed import Parsed

Rows = list[tuple[Any, ...]]


def gather(parsed: list[Parsed]) -> tuple[Rows, list[tuple[int, str]]]:
    """The rows, and (1-based line, reason) of the refused."""
    rows = [row for block in parsed for row in block.rows.rows()]
    refused = [row for block in parsed for row in block.rejected.select("line", "reason").rows()]
    return rows, refused


def one_by_one(lines: list[bytes], read: Any) -> tuple[Rows, list[tuple[int, str]]]:
    """What the exact reader says of each line by itself; a byte order mark is no part of a file."""
    rows: Rows = []
    refused = []
    for number, line in enumerate([lines[0].removeprefix(BOM_UTF8), *lines[1:]]):
        if not line.strip(b" \t\r"):
            continue
        try:
            found = read(line.decode())
        except UnicodeDecodeError:
            found = "not UTF-8"
        if isinstance(found, str):
            refused.append((number + 1, found))
        else:
            rows.append((number, *found))
    return rows, refused
