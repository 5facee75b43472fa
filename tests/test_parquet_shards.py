"""The shard writer: every reader gives back what was written, value for value and type for type."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import parquet_shards
from pipeline.parquet_shards import ShardWriter
from schemas.errors import ContractError
from schemas.shards import LAYOUTS, shard_schema
from tests.parquet_made import (
    READERS,
    SCALARS,
    assert_read_back,
    listed,
    schema_of,
    table_of,
    write,
)

MOST_CELLS = 60_000  # of one column: what keeps these tests short


SIZES = st.one_of(st.integers(1, 430), st.sampled_from([1, 2, 7, 8, 9, 50]))
KINDS = st.one_of(
    st.sampled_from(SCALARS),
    st.builds(listed, st.sampled_from(SCALARS), SIZES),
    st.builds(listed, st.sampled_from(SCALARS)),
)


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(KINDS, min_size=1, max_size=5),
    rows=st.lists(st.one_of(st.integers(0, 20), st.integers(1, 5000)), min_size=1, max_size=3),
    page_bytes=st.sampled_from([64, 4096, parquet_shards.PAGE_BYTES]),
    cut=st.integers(0, 5),
    seed=st.integers(0, 1 << 32),
)
def test_every_reader_gives_back_what_was_written(
    kinds: list[pa.DataType], rows: list[int], page_bytes: int, cut: int, seed: int
) -> None:
    widest = max(kind.list_size if pa.types.is_fixed_size_list(kind) else 30 for kind in kinds)
    most = MOST_CELLS // widest if page_bytes > 64 else 50
    schema = schema_of(kinds)
    # Slices of a larger table: their arrays start in the middle of Arrow's buffers.
    blocks = [table_of(schema, min(n, most) + cut, seed + k).slice(cut) for k, n in enumerate(rows)]
    with TemporaryDirectory() as folder, patch.object(parquet_shards, "PAGE_BYTES", page_bytes):
        path = Path(folder) / "part-00000.parquet"
        write(path, schema, blocks)
        assert_read_back(path, pa.concat_tables(blocks), [b for b in blocks if b.num_rows])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shards_own_schema(tmp_path: Path, layout: str) -> None:
    fields = ("category", "brand")
    schema = shard_schema(
        fields, layout, 50, features=("pid",), numbers=("price",), sessions=(5, 10)
    )
    table, path = table_of(schema, 3000), tmp_path / "part-00000.parquet"
    write(path, schema, [table.slice(0, 2000), table.slice(2000)])
    assert_read_back(path, table, [table.slice(0, 2000), table.slice(2000)])


def test_the_same_parquet_schema_and_counts_as_arrows_writer(tmp_path: Path) -> None:
    kinds = [*SCALARS, *(listed(s, 3) for s in SCALARS), *(listed(s) for s in SCALARS)]
    table = table_of(schema_of(kinds), 500)
    ours, theirs = tmp_path / "ours.parquet", tmp_path / "theirs.parquet"
    write(ours, table.schema, [table])
    pq.write_table(table, theirs)
    assert pq.read_table(ours).equals(pq.read_table(theirs))
    a, b = pq.read_metadata(ours), pq.read_metadata(theirs)
    assert a.schema.equals(b.schema)
    assert str(a.schema).splitlines()[1:] == str(b.schema).splitlines()[1:]
    assert a.metadata == b.metadata
    assert (a.num_rows, a.num_columns) == (b.num_rows, b.num_columns)
    for k in range(a.num_columns):
        left, right = a.row_group(0).column(k), b.row_group(0).column(k)
        assert left.num_values == right.num_values
        assert left.path_in_schema == right.path_in_schema
        assert left.physical_type == right.physical_type
        assert left.compression == "LZ4"
    duck = "SELECT * EXCLUDE (file_name) FROM parquet_schema($path) ORDER BY column_id"
    nodes = [duckdb.sql(duck, params={"path": str(p)}).fetchall() for p in (ours, theirs)]
    assert nodes[0][1:] == nodes[1][1:]


def test_sizes_in_the_footer_add_up(tmp_path: Path) -> None:
    table, path = table_of(schema_of([pa.int64(), listed(pa.int16(), 50)]), 4000), tmp_path / "s"
    write(path, table.schema, [table, table])
    footer = pq.read_metadata(path)
    sizes = "SELECT DISTINCT row_group_compressed_bytes FROM parquet_metadata($path)"
    body = path.stat().st_size - footer.serialized_size - 8 - len(parquet_shards.MAGIC)
    assert duckdb.sql(sizes, params={"path": str(path)}).fetchall() == [(body // 2,)]
    end = len(parquet_shards.MAGIC)
    for g in range(footer.num_row_groups):
        group = footer.row_group(g)
        columns = [group.column(k) for k in range(group.num_columns)]
        assert group.total_byte_size == sum(c.total_uncompressed_size for c in columns)
        for c in columns:
            assert c.data_page_offset == end
            end += c.total_compressed_size
            levels = 0 if c.num_values == 4000 else 2 * 4 + c.num_values // 8
            width = 8 if c.physical_type == "INT64" else 4
            # What is left over are the pages' headers and the heads of the runs of levels.
            assert 10 <= c.total_uncompressed_size - levels - width * c.num_values < 200
    assert end + footer.serialized_size + 8 == path.stat().st_size


def test_full_lists_take_the_same_bytes_in_both_layouts(tmp_path: Path) -> None:
    padded = table_of(schema_of([listed(pa.int16(), 50)]), 4000)
    ragged = padded.cast(schema_of([listed(pa.int16())]))
    chunks = []
    for name, table in (("padded", padded), ("ragged", ragged)):
        write(tmp_path / name, table.schema, [table])
        column = pq.read_metadata(tmp_path / name).row_group(0).column(0)
        start, size = column.data_page_offset, column.total_compressed_size
        chunks.append((tmp_path / name).read_bytes()[start : start + size])
    assert chunks[0] == chunks[1]


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_no_rows(tmp_path: Path, blocks: int) -> None:
    schema, path = (
        schema_of([pa.int8(), listed(pa.int32(), 50), listed(pa.int32())]),
        tmp_path / "s",
    )
    write(path, schema, [schema.empty_table()] * blocks)
    assert_read_back(path, schema.empty_table(), [])


def test_rows_longer_than_a_page_and_pages_of_empty_lists(tmp_path: Path) -> None:
    long, size = parquet_shards.PAGE_BYTES // 8 + 3, parquet_shards.PAGE_BYTES // 8 + 1
    lengths = np.concatenate([[long], np.zeros(2 * long, np.int64), [1, long]])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    values = pa.array(np.arange(int(lengths.sum())))
    ragged = pa.table(
        [pa.ListArray.from_arrays(offsets, values, type=listed(pa.int64()))],
        schema=schema_of([listed(pa.int64())]),
    )
    padded = table_of(schema_of([listed(pa.int64(), size)]), 2)
    for name, table in (("ragged", ragged), ("padded", padded)):
        write(tmp_path / name, table.schema, [table])
        assert_read_back(tmp_path / name, table, [table])


@pytest.mark.parametrize("count", [13, 14, 15, 16, 130])
def test_many_columns_and_row_groups(tmp_path: Path, count: int) -> None:
    rows = min(count, 16)
    table, path = table_of(schema_of([pa.int8()] * count), rows), tmp_path / "s"
    groups = [table.slice(k, 1) for k in range(rows)]
    write(path, table.schema, groups)
    assert_read_back(path, table, groups)


def test_columns_in_several_chunks(tmp_path: Path) -> None:
    schema = schema_of([pa.int16(), listed(pa.uint8(), 5), listed(pa.float32())])
    pieces = [table_of(schema, n, n) for n in (3, 0, 1, 40)]
    table, path = pa.concat_tables(pieces), tmp_path / "s"
    assert table["c0"].num_chunks > 1
    write(path, schema, [table])
    assert_read_back(path, table, [table])


def test_digest_and_size_are_the_files(tmp_path: Path) -> None:
    table, path = table_of(schema_of([listed(pa.int64(), 50)]), 3000), tmp_path / "s"
    with ShardWriter(path, table.schema) as writer:
        writer.write_table(table)
        before = writer.sha256()
    data = path.read_bytes()
    assert writer.sha256() == hashlib.sha256(data).hexdigest() != before
    assert (writer.nbytes, writer.rows) == (len(data), 3000)
    memory = io.BytesIO()
    write(memory, table.schema, [table])
    assert memory.getvalue() == data  # and it is still open


def test_threads_write_what_one_writes(tmp_path: Path) -> None:
    schema = schema_of([pa.int32(), listed(pa.int16(), 50), listed(pa.int64())])
    tables = [table_of(schema, 3000, seed) for seed in range(4)]

    def digest(k: int, folder: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        with ShardWriter(tmp_path / folder / f"{k}", schema) as writer:
            writer.write_table(tables[k])
        return writer.sha256()

    alone = [digest(k, "alone") for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, range(4), ["together"] * 4)) == alone


@pytest.mark.parametrize("read", READERS)
def test_a_truncated_file_is_refused(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    table, path = table_of(schema_of([pa.int64(), listed(pa.int32(), 50)]), 500), tmp_path / "s"
    write(path, table.schema, [table])
    read(path)
    data = path.read_bytes()
    for kept in (0, 4, 11, len(data) // 2, len(data) - 300, len(data) - 1):
        path.write_bytes(data[:kept])
        with pytest.raises((pa.ArrowException, OSError, pl.exceptions.PolarsError, duckdb.Error)):
            read(path)


@pytest.mark.parametrize("read", READERS)
def test_after_an_error_no_reader_takes_the_file(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    table, path = table_of(schema_of([pa.int64()]), 50), tmp_path / "s"

    def stopped() -> None:
        with ShardWriter(path, table.schema) as writer:
            writer.write_table(table)
            raise KeyError("stop")

    with pytest.raises(KeyError):
        stopped()
    assert path.stat().st_size > 0
    with pytest.raises((pa.ArrowException, OSError, pl.exceptions.PolarsError, duckdb.Error)):
        read(path)


def test_closing_twice_is_no_error_but_writing_after_it_is(tmp_path: Path) -> None:
    table, path = table_of(schema_of([pa.int64()]), 50), tmp_path / "s"
    writer = ShardWriter(str(path), table.schema)
    writer.write_table(table)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write_table(table)
    assert pq.read_table(path).equals(table)


@pytest.mark.parametrize(
    "field",
    [
        pa.field("c0", pa.int32()),
        pa.field("c0", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("c0", pa.list_(pa.int32()), nullable=False),
        pa.field("c0", pa.string(), nullable=False),
        pa.field("c0", pa.uint32(), nullable=False),
        pa.field("c0", listed(pa.int32(), 0), nullable=False),
        pa.field("c0", listed(listed(pa.int32(), 2), 2), nullable=False),
        pa.field("c0", pa.large_list(pa.field("element", pa.int8(), False)), nullable=False),
    ],
    ids=str,
)
def test_other_schemas_are_refused(tmp_path: Path, field: pa.Field) -> None:
    with pytest.raises(ContractError, match="c0"):
        ShardWriter(tmp_path / "s", pa.schema([field]))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (pa.int32(), [1, None]),
        (listed(pa.int32(), 2), [[1, 2], None]),
        (listed(pa.int32(), 2), [[1, 2], [None, 3]]),
        (listed(pa.int32()), [[1, 2], None]),
        (listed(pa.int32()), [[1, 2], [None]]),
    ],
    ids=str,
)
def test_nulls_are_refused(tmp_path: Path, kind: pa.DataType, rows: list[Any]) -> None:
    table = pa.Table.from_arrays([pa.array(rows, type=kind)], schema=schema_of([kind]))
    with (
        pytest.raises(ContractError, match="c0 has nulls"),
        ShardWriter(tmp_path / "s", table.schema) as writer,
    ):
        writer.write_table(table)


def test_another_schema_than_the_shards_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ContractError, match="schema"),
        ShardWriter(tmp_path / "s", schema_of([pa.int32()])) as writer,
    ):
        writer.write_table(table_of(schema_of([pa.int64()]), 3))
