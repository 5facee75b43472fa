"""Shards read page by page: all rows, and those of other files by Arrow."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import parquet_shards
from pipeline import parquet_thrift as thrift
from tests.parquet_made import SCALARS, listed, schema_of, table_of, write
from tests.parquet_read import SHARD, asked, read

PADDED = st.builds(listed, st.sampled_from(SCALARS), st.sampled_from([1, 2, 3, 7, 8, 9, 50, 430]))


# ---- what ShardWriter wrote


@settings(max_examples=60, deadline=None)
@given(
    scalars=st.lists(st.sampled_from(SCALARS), max_size=2),
    lists=st.lists(PADDED, min_size=1, max_size=3),
    groups=st.lists(st.one_of(st.integers(0, 20), st.integers(1, 600)), min_size=1, max_size=3),
    page_bytes=st.sampled_from([64, 4096, parquet_shards.PAGE_BYTES]),
    rows=st.one_of(st.integers(1, 9), st.integers(1, 700)),
    seed=st.integers(0, 1 << 32),
)
def test_what_was_written_is_read_without_arrow(
    scalars: list[pa.DataType],
    lists: list[pa.DataType],
    groups: list[int],
    page_bytes: int,
    rows: int,
    seed: int,
) -> None:
    schema = schema_of([*scalars, *lists])
    tables = [table_of(schema, count, seed + k) for k, count in enumerate(groups)]
    with TemporaryDirectory() as folder, patch.object(parquet_shards, "PAGE_BYTES", page_bytes):
        path = Path(folder) / "part-00000.parquet"
        write(path, schema, tables)
        with asked() as by_arrow:
            found = read(path, rows)
        assert found.equals(pa.concat_tables(tables))
        assert found.schema.equals(schema)
        assert found.equals(pq.read_table(path))
        assert not by_arrow


# ---- what others wrote


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_dictionary": False, "compression": "lz4", "write_statistics": False},
        {"data_page_version": "2.0", "compression": "zstd"},
        {"row_group_size": 11, "data_page_size": 64},
    ],
)
def test_what_arrow_wrote_is_read_by_arrow(tmp_path: Path, how: dict[str, Any]) -> None:
    path, table = tmp_path / "s", table_of(SHARD, 40)
    pq.write_table(table, path, **how)
    with asked() as by_arrow:
        assert read(path).equals(table)
    assert by_arrow


def test_ragged_lists_are_read_by_arrow(tmp_path: Path) -> None:
    path, table = tmp_path / "s", table_of(schema_of([listed(pa.int8(), 3), listed(pa.int8())]), 40)
    write(path, table.schema, [table])
    with asked() as by_arrow:
        assert read(path).equals(table)
    assert by_arrow == [0]


@settings(max_examples=40, deadline=None)
@given(stops_at=st.integers(0, 60), rows=st.integers(1, 30))
def test_arrow_goes_on_where_a_page_is_another(stops_at: int, rows: int) -> None:
    """Whichever page it is: no row is lost, none comes twice."""
    read_header, seen = thrift.read_page_header, 0

    def header(data: bytes, at: int) -> thrift.PageHeader | None:
        nonlocal seen
        seen += 1
        return None if seen == stops_at + 1 else read_header(data, at)

    tables = [table_of(SHARD, count, count) for count in (25, 1, 14)]
    with TemporaryDirectory() as folder, patch.object(parquet_shards, "PAGE_BYTES", 96):
        path = Path(folder) / "s"
        write(path, SHARD, tables)
        with patch.object(thrift, "read_page_header", header), asked() as by_arrow:
            assert read(path, rows).equals(pa.concat_tables(tables))
    assert bool(by_arrow) == (seen > stops_at)
