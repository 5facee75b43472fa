"""Events that a data set has kept, as the first rows of a table that new ones continue."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from pipeline.readers.lines import Part
from pipeline.readers.parquet_table import told
from pipeline.readers.parsed import REJECTED, Parsed


class KeptBlock(NamedTuple):
    """A row group of events that are kept; of the lines of raw files it has none."""

    path: Path
    group: int
    lines: int = 0


@dataclass(frozen=True)
class Kept:
    """A reader of events that are kept, each with the row that it had; see `parsed.Reader`.

    Attributes:
        columns: as `Reader.columns`.
    """

    columns: Mapping[str, pa.DataType]

    @staticmethod
    def of(path: Path) -> Kept:
        """One of the columns of a file.

        Raises:
            InputError: it cannot be read.
        """
        with told(path):
            schema = parquet.read_schema(path)
        return Kept({field.name: field.type for field in schema if field.name != "row"})

    def parts(self, path: Path) -> Sequence[Part]:
        """As `shares.parts_of`."""
        return [Part(path)]

    def blocks(self, part: Part) -> Generator[Any]:
        """As `Reader.blocks`."""
        with told(part.path):
            groups = parquet.read_metadata(part.path).num_row_groups
        yield from (KeptBlock(part.path, group) for group in range(groups))

    def parse(self, file: str, block: Any) -> Parsed:
        """As `Reader.parse`."""
        with told(block.path), parquet.ParquetFile(block.path) as opened:
            names = ["row", *self.columns]
            rows = pl.DataFrame(opened.read_row_group(block.group, names, use_threads=False))
        return Parsed(rows.select(names), pl.DataFrame(schema=REJECTED), block.lines)
