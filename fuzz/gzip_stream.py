"""Gzip streams of lines: ours, and the standard library's."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO

import pipeline.readers.parquet_table  # noqa: F401  # loaded at need, which looks like execution
from fuzz.target import Target, written
from pipeline.readers.line_count import estimate_lines
from pipeline.readers.lines import blocks
from pipeline.readers.packed import GZIP_MAGIC

_LINES = b"".join(b"line %d of some text\n" % n for n in range(40))
_MOST = 64 << 20  # a few kilobytes can hold megabytes, and that is no fault


def read(data: bytes) -> int:
    """Read a file, packed or not; what could be read must be what is in it."""
    path = written("lines.gz", data)
    estimate_lines(path)
    found, expected_line = bytearray(), 0
    for block in blocks(path, 997, 4_096):
        assert block.first_line == expected_line
        assert block.data.count(b"\n") == (0 if block.too_long is not None else block.lines)
        assert block.too_long is None or not block.data
        expected_line += block.lines
        found += block.data if block.too_long is None else block.too_long
        if len(found) > _MOST:
            return 1
    try:
        packed = data.startswith(GZIP_MAGIC)
        text = gzip.GzipFile(fileobj=BytesIO(data)).read(_MOST) if packed else data
    except (EOFError, OSError, zlib.error):
        return 1  # what the two forgive differs: ours is held to what can be read by both
    kept = bytearray()
    for line in text.removesuffix(b"\n").split(b"\n") if text else ():
        kept += line[:800] if len(line) > 4_096 else line + b"\n"
    assert bytes(found) == bytes(kept)
    return 1


TARGETS = (
    Target(
        "gzip",
        seeds=(
            gzip.compress(_LINES, mtime=0),
            gzip.compress(_LINES[:50], mtime=0) + gzip.compress(b"last", mtime=0) + b"\0" * 20,
            gzip.compress(b"x" * 9_000 + b"\n" + _LINES, compresslevel=1, mtime=0),
            gzip.compress(b"", mtime=0),
        ),
        words=(
            b"\x1f\x8b\x08",
            b"\x1f\x8b\x08\x1f",
            b"\0" * 8,
            b"\xff" * 4,
            b"\x01\x00\x00\xff\xff",
        ),
        read=read,
    ),
)
