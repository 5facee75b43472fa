"""Raw text files, gzipped or plain, as a stream of blocks of whole lines.

Decompression runs in a thread of its own, and memory stays at a few blocks whatever the size of
the file or of its longest line. Any damage ends in one `InputError`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from isal import igzip_threaded, isal_zlib
from isal.igzip_lib import IsalError

from schemas.errors import InputError

BLOCK_BYTES = 8 << 20
LINE_LIMIT = 16 << 20
GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 4 << 20
_HEAD_TEXT_BYTES = 32 << 20
_SHOWN_BYTES = 800  # of a line that is too long: 200 characters of at most 4 bytes
# isal's stub gives its error class as an instance.
_DAMAGE = (EOFError, OSError, cast("type[Exception]", IsalError))


@dataclass(frozen=True)
class Block:
    """Consecutive whole lines of a file.

    Attributes:
        first_line: 0-based number of the first line in the file.
        data: the lines, each ending in a newline (the file's last one gets one if it lacks it).
        lines: how many lines the block stands for.
        too_long: None, or the first bytes of a line over the limit: then the block stands for
            that one line and `data` is empty.
    """

    first_line: int
    data: bytes
    lines: int
    too_long: bytes | None = None


def blocks(
    path: Path, block_bytes: int = BLOCK_BYTES, line_limit: int = LINE_LIMIT
) -> Iterator[Block]:
    """Yield the file's lines in order, in blocks of about `block_bytes` (at least one line).

    Every line is in exactly one block. Gzip is known by its magic, and may have several members.

    Args:
        path: the file.
        block_bytes: size at which a block is handed out.
        line_limit: bytes above which a line is not kept (see `Block.too_long`).

    Raises:
        InputError: the file is missing, unreadable, cut short or damaged, or is named `.gz` and
            is not gzip.
    """
    first = 0
    held: list[bytes] = []  # pieces read and not yet handed out
    size = tail = 0  # bytes held, and those of them after the last newline
    dropped: bytes | None = None  # the head of the line that is being skipped
    with _opened(path) as stream:
        opener = threading.current_thread()
        while True:
            try:
                piece = stream.read1(min(block_bytes, _PIECE_BYTES))
            except _DAMAGE as error:
                raise _damaged(path, first + sum(p.count(b"\n") for p in held), error) from None
            if not piece:
                break
            if dropped is not None:
                end = piece.find(b"\n") + 1
                if not end:
                    continue
                yield Block(first, b"", 1, dropped)
                first, dropped, piece = first + 1, None, piece[end:]
            end = piece.rfind(b"\n") + 1
            size += len(piece)
            tail = len(piece) - end if end else tail + len(piece)
            if end and size >= block_bytes:
                data = b"".join([*held, piece[:end]])
                held, size = [piece[end:]], tail
            elif tail > line_limit:
                data = b"".join([*held, piece])
                dropped = data[size - tail :][:_SHOWN_BYTES]
                data, held, size, tail = data[: size - tail], [], 0, 0
            else:
                held.append(piece)
                continue
            for block in _cut(data, first, line_limit):
                first = block.first_line + block.lines
                yield block
        if not opener.is_alive():
            # The decompressor stops with the thread that opened it, which would look like the end.
            raise RuntimeError(f"{path}: the thread that began to read this file has ended")
    if dropped is not None:
        yield Block(first, b"", 1, dropped)
        return
    data = b"".join(held)
    if data:
        yield from _cut(data if data.endswith(b"\n") else data + b"\n", first, line_limit)


def line_offsets(data: bytes) -> npt.NDArray[np.int64]:
    """Where each line of `data` begins, and its end: (lines + 1,), for whole lines."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    offsets = np.zeros(len(ends) + 1, np.int64)
    np.add(ends, 1, out=offsets[1:])
    return offsets


def estimate_lines(path: Path) -> int:
    """Guess the number of lines from the head of the file; exact for a small file.

    The guess is the lines per (compressed) byte of the first 4 MiB, times the file's size. It is
    exact where the file has no more than that, and no more than 32 MiB of text.

    Raises:
        InputError: as `blocks`, as far as the head shows it.
    """
    lines = used = 0
    ends_in_newline = True
    try:
        zipped = _check_magic(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_HEAD_BYTES)
        while used < len(head):
            text, taken, ended = _inflate(head[used:]) if zipped else (head, len(head), True)
            lines += text.count(b"\n")
            ends_in_newline = text.endswith(b"\n") if text else ends_in_newline
            used += taken
            if not ended:
                if used == size:
                    raise EOFError("the file ends inside a gzip member")
                break
    except _DAMAGE as error:
        raise _damaged(path, lines, error) from None
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


def _cut(data: bytes, first: int, limit: int) -> Iterator[Block]:
    """Whole lines as one block, or as several around those longer than `limit`."""
    if len(data) > limit + 1:
        offsets = line_offsets(data)
        begin = 0  # the first line not yet handed out
        for line in np.flatnonzero(np.diff(offsets) > limit + 1).tolist():
            if line > begin:
                yield Block(first + begin, data[offsets[begin] : offsets[line]], line - begin)
            head = data[offsets[line] : offsets[line] + _SHOWN_BYTES]
            yield Block(first + line, b"", 1, head)
            begin = line + 1
        first, data = first + begin, data[offsets[begin] :]
    if data:
        lines = int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n")))
        yield Block(first, data, lines)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """The file's text as a stream of bytes."""
    try:
        zipped = _check_magic(path)
        file = path.open("rb")
    except OSError as error:
        raise _damaged(path, 0, error) from None
    with file:
        if not zipped:
            yield file
            return
        # Two of its blocks wait in a queue: as large as ours, so that it works while ours is used.
        stream = igzip_threaded.open(file, "rb", threads=1, block_size=BLOCK_BYTES)  # type: ignore[no-untyped-call]
        with stream:
            yield cast(BufferedReader, stream)


def _check_magic(path: Path) -> bool:
    """Whether the file is gzip; it must be if its name says so."""
    with path.open("rb") as file:
        head = file.read(len(GZIP_MAGIC))
    if head == GZIP_MAGIC:
        return True
    if path.suffix == ".gz":
        raise InputError(
            "The file is not gzip, though it is named so.",
            where=path,
            expected="a gzip file (first bytes 1f 8b)",
            got=f"first bytes {head.hex(' ')}" if head else "an empty file",
            do="download it again; an error page saved under its name is a common cause",
        )
    return False


def _damaged(path: Path, lines: int, error: Exception) -> InputError:
    """What the person should know about `error`, met after `lines` whole lines."""
    if isinstance(error, FileNotFoundError):
        return InputError(
            "The raw file is missing.",
            where=path,
            expected="a file",
            got="no such file",
            do="check the path, or let tinprep download it",
        )
    if isinstance(error, IsADirectoryError):
        return InputError(
            "The raw file is a folder.", where=path, expected="a file", got="a folder"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return InputError(
            "The raw file cannot be read.",
            where=path,
            line=lines + 1,
            expected="a readable file",
            got=error.strerror,
            do="check its permissions and the disk",
        )
    return InputError(
        "The gzip file is cut short or damaged.",
        where=path,
        line=lines + 1,
        expected="whole gzip members to the end of the file",
        got=f"{error} (near this line)",
        do="download it again, and compare its size and checksum",
    )
