"""Files of one table that are not all read alike."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.readers.lines import Part
from pipeline.readers.parsed import Parsed, Reader
from pipeline.readers.shares import parts_of


class _Block(NamedTuple):
    reader: Reader
    block: Any
    lines: int


@dataclass(frozen=True)
class Apart:
    """A reader of files by a reader each, which all give the same columns; see `parsed.Reader`.

    Attributes:
        readers: file -> its reader.
    """

    readers: Mapping[Path, Reader]

    @staticmethod
    def of(readers: Mapping[Path, Reader]) -> Reader:
        """The reader of some files: their own, if all have the same."""
        first, *others = readers.values()
        return Apart(readers) if any(one is not first for one in others) else first

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """As `Reader.columns`."""
        return next(iter(self.readers.values())).columns

    def parts(self, path: Path) -> Sequence[Part] | None:
        """As `shares.parts_of`."""
        return parts_of(self.readers[path], path)

    def blocks(self, part: Part) -> Generator[Any]:
        """As `Reader.blocks`."""
        reader = self.readers[part.path]
        for block in reader.blocks(part):
            yield _Block(reader, block, block.lines)

    def parse(self, file: str, block: Any) -> Parsed:
        """As `Reader.parse`."""
        found: Parsed = block.reader.parse(file, block.block)
        return found
