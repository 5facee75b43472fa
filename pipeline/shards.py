"""Files that are whole or absent: atomic writes, shards, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_shards import ShardWriter
from schemas.manifest import DataFile

TEMPORARY = ".tmp-"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path`, on disk, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value), encoding="utf-8")


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


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
