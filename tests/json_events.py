"""Readers of JSON lines for descriptions that tests make: a table of events, a lookup."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline.readers.lines import Block, Part, blocks
from pipeline.readers.parsed import Parsed, Refused
from schemas.tables import polars_type


@dataclass(frozen=True)
class JsonLines:
    """A reader of rows with these columns, all of which each line has, or null."""

    columns: Mapping[str, pa.DataType]

    def blocks(self, part: Part) -> Generator[Block]:
        return blocks(part)

    def parse(self, file: str, block: Block) -> Parsed:
        lines = [json.loads(line) for line in block.data.decode().splitlines()]
        kinds = {name: polars_type(kind) for name, kind in self.columns.items()}
        frame = pl.DataFrame(
            {name: [line[name] for line in lines] for name in kinds}, schema=kinds, strict=False
        )
        rows = pl.Series("row", range(block.first_line, block.first_line + len(lines)), pl.Int64)
        return Parsed(frame.insert_column(0, rows), Refused(file).frame(), block.lines)

    def __call__(self, path: Path, wanted: pl.Series | None) -> Generator[Parsed]:
        """As a lookup is read."""
        for block in self.blocks(Part(path)):
            yield self.parse(path.name, block)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A line a row."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
