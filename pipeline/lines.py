"""Raw text files, gzipped or plain, as a stream of blocks of whole lines.

Decompression runs in a thread of its own, and memory stays at a few blocks whatever the size of
the file or of its longest line. Any damage ends in one `InputError`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
from isal import igzip, isal_zlib
from isal.igzip_lib import IsalError

from schemas.errors import InputError

BLOCK_BYTES = 8 << 20
LINE_LIMIT = 16 << 20
GZIP_MAGIC = b"\x1f\x8b"
# Of a block: what is refused of one is held, at some 500 bytes a line.
_MOST_LINES = 400_000
_AHEAD = 2
_SMALL_BYTES = 4 << 20
_HEAD_BYTES = 1 << 20
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

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(lines + 1,) where each line of `data` begins, and its end; found when first wanted."""
        return line_offsets(self.data)


@dataclass(frozen=True)
class Part:
    """Consecutive whole lines of a file, or all of it; of a gzip file nothing less than all.

    Attributes:
        path: the file.
        begin: the byte where the first line begins.
        end: the byte after the last line; None for the end of the file.
        first_line: 0-based number of the first line in the file.
    """

    path: Path
    begin: int = 0
    end: int | None = None
    first_line: int = 0


def blocks(
    part: Part | Path, block_bytes: int = BLOCK_BYTES, line_limit: int = LINE_LIMIT
) -> Generator[Block]:
    """Yield the lines in order, in blocks of about `block_bytes` (at least one line).

    Every line is in exactly one block. Gzip is known by its magic, and may have several members.

    Args:
        part: a file, or a part of one.
        block_bytes: size at which a block is handed out.
        line_limit: bytes above which a line is not kept (see `Block.too_long`).

    Raises:
        InputError: the file is missing, unreadable, cut short or damaged, or is named `.gz` and
            is not gzip.
    """
    part = part if isinstance(part, Part) else Part(part)
    path, first = part.path, part.first_line
    carry = bytearray()  # the line that the last piece begins and does not end
    dropped: bytes | None = None  # the head of the line that is being skipped
    with _pieces(part, block_bytes) as pieces:
        while True:
            try:
                piece = next(pieces)
            except _DAMAGE as error:
                raise _damaged(path, first, error) from None
            if not piece:
                break
            if len(piece) < block_bytes and not piece.endswith(b"\n"):
                piece += b"\n"  # the last one
            if dropped is not None:
                end = piece.find(b"\n") + 1
                if not end:
                    continue
                yield Block(first, b"", 1, dropped)
                first, dropped, piece = first + 1, None, piece[end:]
            end = piece.rfind(b"\n") + 1
            if end:
                data = b"".join((carry, memoryview(piece)[:end]))
                carry = bytearray(piece[end:])
                for block in _cut(data, first, line_limit):
                    first = block.first_line + block.lines
                    yield block
            else:
                carry += piece
            if len(carry) > line_limit:
                carry, dropped = bytearray(), bytes(carry[:_SHOWN_BYTES])
    if dropped is not None:
        yield Block(first, b"", 1, dropped)
    elif carry:
        yield from _cut(bytes(carry + b"\n"), first, line_limit)


def line_offsets(data: bytes) -> npt.NDArray[np.int64]:
    """Where each line of `data` begins, and its end: (lines + 1,), for whole lines."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    offsets = np.zeros(len(ends) + 1, np.int64)
    np.add(ends, 1, out=offsets[1:])
    return offsets


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
        raise _damaged(path, 0, error) from None
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
    """Whole lines as one block, or as several: around lines over `limit`, or of very many."""
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
        if lines <= _MOST_LINES:
            yield Block(first, data, lines)
            return
        offsets = line_offsets(data)
        for begin in range(0, lines, _MOST_LINES):
            end = min(begin + _MOST_LINES, lines)
            yield Block(first + begin, data[offsets[begin] : offsets[end]], end - begin)


@contextmanager
def _pieces(part: Part, size: int) -> Iterator[Iterator[bytes]]:
    """The part's text in pieces of `size` bytes, then empty ones; two are read ahead of use."""
    path = part.path
    try:
        zipped = is_gzip(path)
        file = path.open("rb")
    except OSError as error:
        raise _damaged(path, 0, error) from None
    reader = ThreadPoolExecutor(1, "read")
    wait = True
    with file:
        stream = cast("BinaryIO", igzip.open(file, "rb")) if zipped else file  # type: ignore[no-untyped-call]
        if part.begin:
            stream.seek(part.begin)
        left = part.end - part.begin if part.end is not None else None

        def read() -> bytes:
            nonlocal left
            if left is None:
                return stream.read(size)
            piece = stream.read(min(size, left))
            left -= len(piece)
            return piece

        ahead = deque(reader.submit(read) for _ in range(_AHEAD))

        def pieces() -> Iterator[bytes]:
            while True:
                yield ahead.popleft().result()
                ahead.append(reader.submit(read))

        try:
            yield pieces()
        except GeneratorExit:
            # Perhaps the garbage collector's, while some thread starts: to wait for another
            # thread there would never end.
            wait = False
            raise
        finally:
            reader.shutdown(wait=wait, cancel_futures=True)


def is_gzip(path: Path) -> bool:
    """Whether the file is gzip; it must be if its name says so.

    Raises:
        InputError: its name says so, and it is not.
        OSError: it cannot be read.
    """
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
