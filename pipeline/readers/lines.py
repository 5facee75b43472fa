"""Raw text files, plain or packed, as a stream of blocks of whole lines.

Unpacking runs in a thread of its own, and memory stays at a few blocks whatever the size of
the file or of its longest line. Any damage ends in one `InputError`.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.readers.packed import DAMAGE, damaged, packing_of, unpacked
from schemas.interrupts import FOR_EVER

BLOCK_BYTES = 8 << 20
LINE_LIMIT = 16 << 20
# Of a block: what is refused of one is held, at some 500 bytes a line.
_MOST_LINES = 400_000
_AHEAD = 2
_SHOWN_BYTES = 800  # of a line that is too long: 200 characters of at most 4 bytes


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

    @property
    def unmarked(self) -> Block:
        """The block without the byte order mark that some editors put before a file's text."""
        if self.first_line or not self.data.startswith(BOM_UTF8):
            return self
        return Block(0, self.data.removeprefix(BOM_UTF8), self.lines)


@dataclass(frozen=True)
class Part:
    """Consecutive whole lines of a file, or all of it; of a packed file nothing less than all.

    Attributes:
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

    Every line is in exactly one block. Gzip and zstd are known by the file's first bytes, and may
    have several members or frames.

    Args:
        part: a file, or a part of one.
        block_bytes: size at which a block is handed out.
        line_limit: bytes above which a line is not kept (see `Block.too_long`).

    Raises:
        InputError: the file is missing, unreadable, cut short or damaged, or neither text nor gzip
            nor zstd.
    """
    part = part if isinstance(part, Part) else Part(part)
    path, first = part.path, part.first_line
    carry = bytearray()  # the line that the last piece begins and does not end
    dropped: bytes | None = None  # the head of the line that is being skipped
    with _pieces(part, block_bytes) as pieces:
        while True:
            try:
                piece = next(pieces)
            except DAMAGE as error:
                raise damaged(path, first, error) from None
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
        packing = packing_of(path)
        file = path.open("rb")
    except DAMAGE as error:
        raise damaged(path, 0, error) from None
    reader = ThreadPoolExecutor(1, "read")
    wait = True
    with file:
        stream = unpacked(file, packing)
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
                yield ahead.popleft().result(FOR_EVER)
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
