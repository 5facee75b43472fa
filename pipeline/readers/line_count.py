"""How many lines a raw file has, guessed from its head, for progress and for the room needed.

A Parquet file says how many rows it has.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.readers.packed import DAMAGE, PARQUET, damaged, packing_of, unpacked

_MOST_FILES = 16
_SMALL_BYTES = 4 << 20
_HEAD_BYTES = 1 << 20
_HEAD_TEXT_BYTES = 32 << 20
_PIECE_BYTES = 256 << 10
_SHORT_BYTES = 16 << 10


def estimate_lines(path: Path) -> int:
    """Guess the number of lines from the head of the file; exact for a small file.

    The guess is the lines per (packed) byte of the first MiB, times the file's size. It is exact
    where the file has no more than 4 MiB, and no more than 32 MiB of text.

    Raises:
        InputError: as `blocks`, as far as the head shows it.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise damaged(path, 0, error) from None
    return _estimated(path, stat.st_size, stat.st_mtime_ns)


def estimate_table(paths: Sequence[Path]) -> int:
    """Guess the number of lines of a table's files; of many, from some of them and their sizes.

    Raises:
        InputError: as `estimate_lines`.
    """
    if len(paths) <= _MOST_FILES:
        return sum(map(estimate_lines, paths))
    try:
        size = sum(path.stat().st_size for path in paths)
        some = paths[:: len(paths) // _MOST_FILES]
        of_some = sum(path.stat().st_size for path in some)
    except OSError as error:
        raise damaged(paths[0], 0, error) from None
    return sum(map(estimate_lines, some)) * size // max(of_some, 1)


class _ShortReads(io.RawIOBase):
    """A file of which unpacking gets little at once, so that its position says what was used."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self.file.read(min(len(buffer), _SHORT_BYTES))
        buffer[: len(piece)] = piece
        return len(piece)


@lru_cache
def _estimated(path: Path, size: int, changed: int) -> int:
    """The guess, which several steps want, for a file of this size that was changed then."""
    most = _HEAD_BYTES if size > _SMALL_BYTES else size
    lines = text = 0
    last = b""
    try:
        with path.open("rb") as file:
            if file.read(len(PARQUET)) == PARQUET:
                # Imported where it is wanted, as it is slow to load.
                from pipeline.readers.parquet_table import rows_of

                return rows_of(path)
        packing = packing_of(path)
        with path.open("rb") as file:
            stream = unpacked(cast("BinaryIO", _ShortReads(file)), packing)
            while piece := stream.read(_PIECE_BYTES):
                lines, text, last = lines + piece.count(b"\n"), text + len(piece), piece[-1:]
                if text >= _HEAD_TEXT_BYTES or file.tell() >= most < size:
                    return round(lines * size / file.tell())
    except DAMAGE as error:
        raise damaged(path, lines, error) from None
    return lines + (last not in (b"", b"\n"))
