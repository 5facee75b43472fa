"""Events that a data set has kept, and new ones behind them, as the rows of one table."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from pipeline.readers.lines import Part
from pipeline.readers.parquet_table import told
from pipeline.readers.parsed import REJECTED, Parsed, Reader
from pipeline.readers.shares import parts_of


@dataclass(frozen=True)
class Nothing:
    """A reader of no new file; see `parsed.Reader`.

    Attributes:
        columns: as `Reader.columns`.
    """

    columns: Mapping[str, pa.DataType]

    @staticmethod
    def of(kept: Path) -> Nothing:
        """One of the columns of a file of kept events.

        Raises:
            InputError: it cannot be read.
        """
        with told(kept):
            schema = parquet.read_schema(kept)
        return Nothing({field.name: field.type for field in schema if field.name != "row"})

    def blocks(self, part: Part) -> Generator[Any]:
        """As `Reader.blocks`."""
        raise AssertionError(part)

    def parse(self, file: str, block: Any) -> Parsed:
        """As `Reader.parse`."""
        raise AssertionError(file)


class KeptBlock(NamedTuple):
    """A row group of events that are kept; of the lines of raw files it has none."""

    path: Path
    group: int
    lines: int = 0


@dataclass(frozen=True)
class Continued:
    """A reader of kept events and of new files; see `parsed.Reader`.

    Attributes:
        first_row: the row of the first new event.
    """

    reader: Reader
    kept: frozenset[Path]
    first_row: int

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """As `Reader.columns`."""
        return self.reader.columns

    def parts(self, path: Path) -> Sequence[Part] | None:
        """As `shares.parts_of`."""
        return [Part(path)] if path in self.kept else parts_of(self.reader, path)

    def blocks(self, part: Part) -> Generator[Any]:
        """As `Reader.blocks`."""
        if part.path not in self.kept:
            yield from self.reader.blocks(part)
            return
        with told(part.path):
            groups = parquet.read_metadata(part.path).num_row_groups
        yield from (KeptBlock(part.path, group) for group in range(groups))

    def parse(self, file: str, block: Any) -> Parsed:
        """As `Reader.parse`; rows count on from those of the kept events."""
        if not isinstance(block, KeptBlock):
            found = self.reader.parse(file, block)
            line_of, first = found.line_of, self.first_row
            return replace(
                found,
                rows=found.rows.with_columns(pl.col("row") + first),
                line_of=None if line_of is None else lambda row: line_of(row - first),
            )
        with told(block.path), parquet.ParquetFile(block.path) as opened:
            names = ["row", *self.columns]
            rows = pl.DataFrame(opened.read_row_group(block.group, names, use_threads=False))
        return Parsed(rows.select(names), pl.DataFrame(schema=REJECTED), block.lines)
