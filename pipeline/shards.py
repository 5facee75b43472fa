"""Tables and shards as files that are whole or absent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_shards import ShardWriter
from pipeline.record import atomic
from schemas.manifest import DataFile


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small table as Parquet, atomically."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_shard(path: Path, schema: pa.Schema, blocks: Iterable[pa.Table], out: Path) -> DataFile:
    """Write blocks of rows as one shard, a row group each, atomically."""
    with atomic(path) as temporary:
        with ShardWriter(temporary, schema) as writer:
            for block in blocks:
                writer.write_table(block)
        return DataFile(path.relative_to(out).as_posix(), writer.rows, writer.sha256())
