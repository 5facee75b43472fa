"""What reading a block of a raw file gives, whichever file it is: its rows and refused lines."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import polars as pl
import pyarrow as pa

from pipeline.parallel import map_stream
from pipeline.readers.lines import Block, Part

REJECTED = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "text": pl.String}

TOO_LONG = "line too long"
NOT_UTF8 = "not UTF-8"
# Of unix time: as seconds it is the year 5138, as milliseconds 1973.
MILLISECONDS_FROM = 100_000_000_000

SHOWN = 200  # characters of a line

Line = TypeVar("Line")


@dataclass(frozen=True)
class Parsed:
    """What a block of a file holds.

    Attributes:
        rows: the lines read, in the file's order.
        rejected: the lines refused, in the file's order: file (its name), line (1-based), reason
            (one of the constants here or of the file's exact reader), text (the first 200
            characters).
        left_out: how many lines were read, and are not wanted.
        line_of: the 1-based line where a row begins; None where rows are lines below a header.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    lines: int
    left_out: int = 0
    line_of: Callable[[int], int] | None = None

    @property
    def read(self) -> int:
        """How many lines hold something."""
        return self.rows.height + self.rejected.height + self.left_out


@dataclass
class Refused:
    """The lines of one block that are refused.

    Attributes:
        found: a row of `REJECTED` for each, in the order they were found.
    """

    file: str
    found: list[tuple[str, int, str, str]] = field(default_factory=list)

    def add(self, line: int, reason: str, data: bytes) -> None:
        """Refuse the 0-based `line`, of which `data` is at least the beginning."""
        # A character takes at most four bytes.
        text = data[: 4 * SHOWN].decode(errors="replace")[:SHOWN].rstrip("\r\n")
        self.found.append((self.file, line + 1, reason, text))

    def frame(self) -> pl.DataFrame:
        """A row of `REJECTED` for each, in the file's order."""
        return pl.DataFrame(self.found, schema=REJECTED, orient="row").sort("line")


def read_alone(
    lines: Iterable[tuple[int, bytes]], read: Callable[[str], Line | str], refused: Refused
) -> Iterator[tuple[int, Line]]:
    """Some lines through an exact reader; those that are blank are passed over.

    Args:
        lines: each with its 0-based number in the file.
        read: gives what a line says, or the reason why it is refused.
    """
    for number, line in lines:
        if not line.strip(b" \t\r"):
            continue
        try:
            found = read(line.decode())
        except UnicodeDecodeError:
            found = NOT_UTF8
        if isinstance(found, str):
            refused.add(number, found, line)
        else:
            yield number, found


class Reader(Protocol):
    """How the lines of a raw file become rows. It is sent to where the work is done."""

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """The columns that rows have besides `row`, with their types: int64, text, float64."""

    def blocks(self, part: Part) -> Generator[Block]:
        """The lines of a part of a file, some at a time, without a header.

        Raises:
            InputError: the file cannot be read, or is another than it should be.
        """

    def parse(self, file: str, block: Block) -> Parsed:
        """Read some lines; any number of threads may do so at once.

        Returns:
            `rows` with `row`, the 0-based row in the file (a header is none), and `columns`.
        """


def read(reader: Reader, part: Part | Path, threads: int = 1) -> Generator[Parsed]:
    """Read a file, or a part of it, in order.

    Args:
        threads: how many blocks are parsed at once, besides the one that is being read.

    Raises:
        InputError: as `Reader.blocks`.
    """
    part = part if isinstance(part, Part) else Part(part)
    return map_stream(partial(reader.parse, part.path.name), reader.blocks(part), threads)
