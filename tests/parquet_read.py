"""Shards read page by page in tests, and whether Arrow was asked meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_pages import read_batches
from pipeline.verify.findings import UNREADABLE
from tests.parquet_made import SCALARS, listed, schema_of

BY_ARROW = pq.ParquetFile.iter_batches
# No floats: NaN is unlike itself.
SHARD = schema_of(
    [pa.int8(), pa.int64(), *(listed(kind, 3) for kind in SCALARS if kind != pa.float32())]
)


@contextmanager
def asked() -> Iterator[list[Any]]:
    """The row groups for which Arrow is asked meanwhile."""
    groups: list[Any] = []

    def told(file: pq.ParquetFile, *given: Any, **how: Any) -> Iterator[pa.RecordBatch]:
        groups.extend(how["row_groups"])
        return BY_ARROW(file, *given, **how)

    with patch.object(pq.ParquetFile, "iter_batches", told):
        yield groups


def read(path: Path, rows: int = 7) -> pa.Table:
    with pq.ParquetFile(path) as file:
        batches = list(read_batches(file, path, rows))
        assert all(0 < len(batch) <= rows for batch in batches)
        return pa.Table.from_batches(batches, schema=file.schema_arrow)


def outcome(work: Callable[[], pa.Table]) -> pa.Table | None:
    """A table that is whole; None for an error of Arrow's."""
    try:
        table = work()
        table.validate(full=True)
    except UNREADABLE:
        return None
    return table
