"""Columns that the names of folders give, as in `day=2017-11-25/part.csv`, whatever the files are.

Where a file has a column of the same name, its own counts.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.readers.lines import Part
from pipeline.readers.parsed import Refused

if TYPE_CHECKING:
    from pipeline.readers.own_tables import Source

_HIVE = re.compile(r"([A-Za-z_]\w*)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True)
class PlacedBlock:
    """A block of a file, and which file it is of."""

    path: Path
    of: Any

    @property
    def first_row(self) -> int:
        """As of the block."""
        return int(self.of.first_row)

    @property
    def lines(self) -> int:
        """As of the block."""
        return int(self.of.lines)


@dataclass(frozen=True)
class Partitioned:
    """Columns of files and of their folders' names; see `own_tables.Source`.

    Attributes:
        source: of the files' own columns.
        folders: the columns that the folders' names give: whole numbers if all are, else text.
    """

    source: Source
    folders: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return *self.source.names, *self.folders

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """As `Source.schema`."""
        own = self.source.schema
        return None if own is None else {**own, **self.folders}

    @property
    def tells_nulls(self) -> bool:
        """As `Source.tells_nulls`."""
        return self.source.tells_nulls

    @property
    def nulls(self) -> frozenset[str]:
        """As `Source.nulls`."""
        return self.source.nulls

    def require(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        """As `Source.require`: a folder's name may give no value."""
        self.source.require(paths, [name for name in names if name not in self.folders])

    def parts(self, path: Path) -> Sequence[Part] | None:
        """As `Source.parts`."""
        return self.source.parts(path)

    def blocks(self, part: Part, wanted: Mapping[str, str]) -> Generator[PlacedBlock]:
        """As `Source.blocks`."""
        with closing(self.source.blocks(part, self._own(wanted))) as stream:
            for block in stream:
                yield PlacedBlock(part.path, block)

    def frames(
        self, block: PlacedBlock, wanted: Mapping[str, str], refused: Refused
    ) -> Iterator[tuple[npt.NDArray[np.int64], pl.DataFrame]]:
        """As `Source.frames`."""
        values = folders_of(block.path)
        for indices, frame in self.source.frames(block.of, self._own(wanted), refused):
            columns = {}
            for name in wanted:
                if name in self.folders:
                    one = pl.Series(name, [values.get(name)], pl.String).cast(self.folders[name])
                    columns[name] = one.new_from_index(0, len(indices))
                else:
                    columns[name] = frame[name]
            yield indices, pl.DataFrame(columns)

    def record(self, block: PlacedBlock, index: int) -> tuple[int, bytes | None]:
        """As `Source.record`."""
        return self.source.record(block.of, index)

    def _own(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """What is wanted of the files: something, as how many records they have is told by it."""
        own = {name: use for name, use in wanted.items() if name not in self.folders}
        return own or {self.source.names[0]: "text"}


def with_folders(source: Source, paths: Sequence[Path]) -> Source:
    """The source with what the folders of its files say besides, if they do."""
    folders: dict[str, Any] = {}
    for name in folders_of(paths[0]):
        if name not in source.names:
            values = [folders_of(path).get(name) for path in paths]
            whole = all(value is None or _INTEGER.fullmatch(value) for value in values)
            folders[name] = pl.Int64() if whole and any(values) else pl.String()
    return Partitioned(source, folders) if folders else source


def folders_of(path: Path) -> dict[str, str | None]:
    """What the names of the folders around a file say."""
    found = (match.groups() for part in path.parts[:-1] if (match := _HIVE.fullmatch(part)))
    return {name: None if value == _HIVE_NULL else unquote(value) for name, value in found}
