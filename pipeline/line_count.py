"""How many lines a raw file has, guessed from its head, for progress and for the room needed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from isal import isal_zlib

from pipeline.gzipped import DAMAGE, damaged, is_gzip

_SMALL_BYTES = 4 << 20
_HEAD_BYTES = 1 << 20
_HEAD_TEXT_BYTES = 32 << 20


def estimate_lines(path: Path) -> int:
    """Guess the number of lines from the head of the file; exact for a small file.

    The guess is the lines per (compressed) byte of the first MiB, times the file's size. It is
    exact where the file has no more than 4 MiB, and no more than 32 MiB of text.

    Raises:
        InputError: as `blocks`, as far as the head shows it.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise damaged(path, 0, error) from None
    return _estimated(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _estimated(path: Path, size: int, changed: int) -> int:
    """The guess, which several steps want, for a file of this size that was changed then."""
    lines = used = 0
    ends_in_newline = True
    try:
        zipped = is_gzip(path)
        with path.open("rb") as file:
            head = file.read(size if size <= _SMALL_BYTES else _HEAD_BYTES)
        while used < len(head):
            text, taken, ended = _inflate(head[used:]) if zipped else (head, len(head), True)
            lines += text.count(b"\n")
            ends_in_newline = text.endswith(b"\n") if text else ends_in_newline
            used += taken
            if not ended:
                if used == size:
                    raise EOFError("the file ends inside a gzip member")
                break
    except DAMAGE as error:
        raise damaged(path, lines, error) from None
    if used >= size:
        return lines + (not ends_in_newline)
    return round(lines * size / used)


def _inflate(head: bytes) -> tuple[bytes, int, bool]:
    """The text of the gzip member that `head` begins with, up to 32 MiB of it.

    Returns:
        The text, the bytes of `head` that it took, and whether the member's end was reached.
    """
    if not head.strip(b"\0"):  # zeros may pad a gzip file
        return b"", len(head), True
    inflater = isal_zlib.decompressobj(31)
    text = inflater.decompress(head, _HEAD_TEXT_BYTES)
    taken = len(head) - len(inflater.unused_data) - len(inflater.unconsumed_tail)
    return text, taken, inflater.eof
