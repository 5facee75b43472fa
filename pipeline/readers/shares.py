"""Tables of one file or of several: whose place each file has, and what is read of them at once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.readers.lines import Block, Part
from pipeline.readers.raw_files import names_of

if TYPE_CHECKING:
    from pipeline.readers.parsed import Reader


@dataclass(frozen=True)
class Placed:
    """A part of a file, and where in its table that is.

    Attributes:
        part: of the file.
        name: what the file is called among those of the table.
        number: of the file in the table, from 0.
        first_row: the table's row of the file's first one; None where that follows from the files
            before it, which are read before it.
    """

    part: Part
    name: str
    number: int = 0
    first_row: int | None = None


@dataclass(frozen=True)
class Share:
    """What is read one after another of a table: one part of a file, or whole files.

    Attributes:
        parts: in the table's order.
        before: which share of the table's bytes is before it, from 0 to 1.
    """

    parts: tuple[Placed, ...]
    before: float = 0.0


@dataclass(frozen=True)
class PlacedBlock:
    """A block of a file's lines.

    Attributes:
        first_row: the table's row of the file's first one.
    """

    of: Placed
    first_row: int
    block: Block


def placed(paths: Sequence[Path]) -> list[Placed]:
    """The whole files of a table."""
    named = enumerate(zip(paths, names_of(paths), strict=True))
    return [Placed(Part(path), name, number) for number, (path, name) in named]


def parts_of(reader: Reader, path: Path) -> Sequence[Part] | None:
    """What may be read side by side of a file; None where it may be cut at any newline.

    Raises:
        InputError: the file cannot be read.
    """
    parts = getattr(reader, "parts", None)
    return parts(path) if parts is not None else None


def rows_of(reader: Reader, path: Path) -> int:
    """How many rows a file has, refused ones too; all of it is read.

    Raises:
        InputError: as `Reader.blocks`.
    """
    with closing(reader.blocks(Part(path))) as stream:
        return sum(block.lines for block in stream)


def blocks_of(reader: Reader, share: Share) -> Generator[PlacedBlock]:
    """The blocks of a share, each with the row that its file begins at.

    Raises:
        InputError: as `Reader.blocks`.
    """
    row = 0
    for of in share.parts:
        first = row if of.first_row is None else of.first_row
        row = first
        with closing(reader.blocks(of.part)) as stream:
            for block in stream:
                yield PlacedBlock(of, first, block)
                row += block.lines
