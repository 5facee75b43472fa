"""What the readers of raw Amazon files read, and what is to be read of each line."""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import Any

from fuzz.reviews import decoded
from pipeline.readers.parsed import Parsed

Rows = list[tuple[Any, ...]]


def gather(parsed: list[Parsed]) -> tuple[Rows, list[int]]:
    """The rows, and the 1-based lines of the refused."""
    rows = [row for block in parsed for row in block.rows.rows()]
    return rows, [line for block in parsed for line in block.rejected["line"]]


def one_by_one(lines: list[bytes], read: Any) -> tuple[Rows, list[int]]:
    """What `read` says of each line by itself, and the refused (1-based).

    A byte order mark is no part of a file.
    """
    rows: Rows = []
    refused = []
    for number, line in enumerate([lines[0].removeprefix(BOM_UTF8), *lines[1:]]):
        found = decoded(line, read)
        if found:
            rows.append((number, *found))
        elif line.strip(b" \t\r"):
            refused.append(number + 1)
    return rows, refused
