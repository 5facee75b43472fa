"""Shards as files: every reader gives back what was written, value for value and type for type."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.steps.shards import write_blocks, write_shard
from schemas.bounds import LAYOUTS
from schemas.errors import ContractError
from schemas.shards import numpy_type
from tests.one_history import shard_schema

SCALARS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.float32())
SIZES = st.one_of(st.integers(1, 430), st.sampled_from([1, 2, 7, 8, 9, 50]))


def listed(value: pa.DataType, size: int = -1) -> pa.DataType:
    return pa.list_(pa.field("element", value, nullable=False), size)


KINDS = st.one_of(
    st.sampled_from(SCALARS),
    st.builds(listed, st.sampled_from(SCALARS), SIZES),
    st.builds(listed, st.sampled_from(SCALARS)),
)


def schema_of(*kinds: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(f"c{k}", kind, nullable=False) for k, kind in enumerate(kinds)])


def cells(rng: np.random.Generator, kind: pa.DataType, count: int) -> pa.Array:
    """Values over the type's whole range, its ends among them, and runs of zeros."""
    dtype = numpy_type(kind)
    if dtype.kind == "f":
        ends = np.array([-np.inf, np.inf, -0.0, np.finfo(dtype).max, np.finfo(dtype).tiny])
        values = rng.normal(size=count)
    else:
        ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max])
        values = rng.integers(ends[0], ends[1], size=count, dtype=dtype, endpoint=True)
    values = np.where(rng.random(count) < 0.1, rng.choice(ends, count), values).astype(dtype)
    values[rng.random(count) < 0.5] = 0
    return pa.array(values)


def column(rng: np.random.Generator, kind: pa.DataType, rows: int) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        values = cells(rng, kind.value_type, rows * kind.list_size)
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    if pa.types.is_list(kind):
        lengths = rng.integers(0, rng.choice([1, 2, 9, 60]), rows, endpoint=True)
        lengths = np.maximum(lengths, rng.choice([0, 1]))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = cells(rng, kind.value_type, int(offsets[-1]))
        return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)
    return cells(rng, kind, rows)


def table_of(schema: pa.Schema, rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table([column(rng, field.type, rows) for field in schema], schema=schema)


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def assert_same_values(got: pa.Table, wanted: pa.Table) -> None:
    """For readers with types of their own for lists: the same lengths, the same values."""
    assert got.column_names == wanted.column_names
    for name in wanted.column_names:
        ours, theirs = wanted[name].combine_chunks(), got[name].combine_chunks()
        assert theirs.null_count == 0, name
        if is_list(ours.type):
            plain = theirs.cast(pa.list_(theirs.type.value_type))
            lengths = ours.cast(pa.list_(ours.type.value_type)).value_lengths()
            assert plain.value_lengths().equals(lengths), name
            ours, theirs = ours.flatten(), plain.flatten()
        assert theirs.type == ours.type, name
        assert theirs.equals(ours), name


def assert_read_back(path: Path, wanted: pa.Table, group: int) -> None:
    """Through every reader, the file holds `wanted`, in row groups of so many rows."""
    for memory_map in (False, True):
        whole = pq.read_table(path, memory_map=memory_map)
        assert whole.schema.equals(wanted.schema)
        assert whole.equals(wanted)
    with pq.ParquetFile(path, memory_map=True) as file:
        for k, low in enumerate(range(0, len(wanted), group or 1)):
            part = wanted.slice(low, group)
            assert file.read_row_group(k).equals(part)
            name = wanted.column_names[k % wanted.num_columns]
            assert file.read_row_group(k, columns=[name]).equals(part.select([name]))
            for at, kind in enumerate(wanted.schema.types):
                found = file.metadata.row_group(k).column(at)
                assert found.compression == "ZSTD"
                if pa.types.is_integer(kind):
                    least, most = pc.min_max(part[at]).as_py().values()
                    assert (found.statistics.min, found.statistics.max) == (least, most)
        assert file.num_row_groups == -(-len(wanted) // (group or 1))
        batches = list(file.iter_batches(batch_size=777))
        assert pa.Table.from_batches(batches, schema=file.schema_arrow).equals(wanted)
    assert ds.dataset(path).to_table().equals(wanted)

    frame, lazy = pl.read_parquet(path), pl.scan_parquet(path).collect()
    for name, kind in zip(wanted.column_names, wanted.schema.types, strict=True):
        if pa.types.is_fixed_size_list(kind):
            assert isinstance(frame.schema[name], pl.Array)
            assert frame.schema[name].shape == (kind.list_size,)
    assert_same_values(frame.to_arrow(), wanted)
    assert_same_values(lazy.to_arrow(), wanted)
    with duckdb.connect() as con:
        result = con.sql("SELECT * FROM read_parquet($path)", params={"path": str(path)})
        assert_same_values(result.to_arrow_table(), wanted)


@settings(max_examples=40)
@given(
    kinds=st.lists(KINDS, min_size=1, max_size=5),
    rows=st.lists(st.one_of(st.integers(0, 20), st.integers(1, 5000)), max_size=3),
    cut=st.integers(0, 5),
    seed=st.integers(0, 1 << 32),
)
def test_every_reader_gives_back_what_was_written(
    kinds: list[pa.DataType], rows: list[int], cut: int, seed: int
) -> None:
    widest = max(kind.list_size if pa.types.is_fixed_size_list(kind) else 30 for kind in kinds)
    schema = schema_of(*kinds)
    # Slices of a larger table: their arrays start in the middle of Arrow's buffers.
    blocks = [
        table_of(schema, min(n, 60_000 // widest) + cut, seed + k).slice(cut)
        for k, n in enumerate(rows)
    ]
    if len(blocks) > 1:  # one of several chunks
        blocks[1] = pa.concat_tables([blocks[1].slice(0, 1), blocks[1].slice(1)])
    whole = pa.concat_tables([schema.empty_table(), *blocks])
    group = next((len(block) for block in blocks if len(block)), 0)
    few = max(1, len(whole) // 40)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "part-00000.parquet"
        if 0 < group < few:  # not thousands of row groups
            blocks, group = [whole], len(whole)
        assert write_blocks(path, schema, blocks) == len(whole)
        assert_read_back(path, whole, group)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shard_has_the_parquet_schema_that_arrow_writes(tmp_path: Path, layout: str) -> None:
    schema = shard_schema(
        ("category", "brand"), layout, 50, features=("pid",), numbers=("price",), sessions=(5, 10)
    )
    table, path = table_of(schema, 3000), tmp_path / "part-00000.parquet"
    write_blocks(path, schema, [table.slice(0, 2000), table.slice(2000)])
    assert_read_back(path, table, 2000)
    pq.write_table(table, tmp_path / "arrow.parquet")
    ours, theirs = (pq.read_metadata(p) for p in (path, tmp_path / "arrow.parquet"))
    assert str(ours.schema).splitlines()[2:] == str(theirs.schema).splitlines()[2:]
    assert ours.metadata == theirs.metadata


def test_few_blocks_are_held_at_a_time(tmp_path: Path) -> None:
    schema = schema_of(listed(pa.int64(), 50))
    zeros = pa.array(np.zeros(1_000_000, np.int64))
    held = []

    def blocks() -> Iterator[pa.Table]:
        before = pa.total_allocated_bytes()
        for k in range(30):
            values = pc.add(zeros, k)  # memory that Arrow counts, unlike NumPy's
            held.append((pa.total_allocated_bytes() - before) / values.nbytes)
            array = pa.FixedSizeListArray.from_arrays(values, type=schema[0].type)
            del values
            yield pa.table([array], schema=schema)
            del array

    assert write_blocks(tmp_path / "s", schema, blocks()) == 600_000
    assert pq.read_metadata(tmp_path / "s").num_row_groups == 30
    assert 1 <= max(held) < 8  # a busy machine lets some more wait


def test_threads_write_the_bytes_that_one_writes(tmp_path: Path) -> None:
    schema = schema_of(pa.int32(), listed(pa.int16(), 50), listed(pa.int64()))
    tables = [table_of(schema, 3000, seed) for seed in range(4)]

    def written(k: int, name: str) -> bytes:
        path = tmp_path / f"{name}-{k}"
        write_blocks(path, schema, [tables[k].slice(low, 700) for low in range(0, 3000, 700)])
        return path.read_bytes()

    alone = [written(k, "alone") for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(written, range(4), ["together"] * 4)) == alone


READERS: list[Callable[[Path], Any]] = [
    lambda path: pq.read_table(path, memory_map=True),
    pl.read_parquet,
    lambda path: duckdb.sql(f"SELECT * FROM read_parquet('{path}')").fetchall(),
]


@pytest.mark.parametrize("read", READERS)
def test_no_reader_takes_a_file_that_was_cut_short(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    schema, path = schema_of(pa.int64(), listed(pa.int32(), 50)), tmp_path / "s"
    table = table_of(schema, 500)
    write_blocks(path, schema, [table])
    read(path)
    data = path.read_bytes()
    broken = (pa.ArrowException, OSError, pl.exceptions.PolarsError, duckdb.Error)
    for kept in (0, 4, 11, len(data) // 2, len(data) - 300, len(data) - 1):
        path.write_bytes(data[:kept])
        with pytest.raises(broken):
            read(path)


def test_an_error_in_a_block_leaves_no_shard(tmp_path: Path) -> None:
    schema = schema_of(pa.int64())

    def blocks(error: BaseException) -> Iterator[pa.Table]:
        yield from [table_of(schema, 50)] * 9
        raise error

    for error in (KeyError("stop"), KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(error)) as told:
            write_shard(tmp_path / "train" / "s", schema, blocks(error), tmp_path)
        assert told.value is error
        assert not any((tmp_path / "train").iterdir())


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
def test_nulls_are_refused(tmp_path: Path, kind: pa.DataType, rows: Sequence[Any]) -> None:
    table = pa.Table.from_arrays([pa.array(rows, type=kind)], schema=schema_of(kind))
    with pytest.raises(ContractError, match="not as its schema says"):
        write_blocks(tmp_path / "s", table.schema, [table])


@pytest.mark.parametrize("k", [0, 1])
def test_another_schema_than_the_shards_is_refused(tmp_path: Path, k: int) -> None:
    schema = schema_of(pa.int32(), listed(pa.int32(), 3))
    for other in (
        schema_of(pa.int64(), listed(pa.int32(), 3)),
        schema_of(pa.int32(), listed(pa.int32(), 4)),
        schema_of(pa.int32(), listed(pa.int32())),
        pa.schema([schema[1], schema[0]]),
        pa.schema([schema[0]]),
    ):
        blocks = [*[table_of(schema, 3)] * k, table_of(other, 3)]
        with pytest.raises(ContractError, match="not as its schema says"):
            write_blocks(tmp_path / "s", schema, blocks)


def test_a_full_disk_is_told_as_one() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    schema = schema_of(pa.int64())
    with pytest.raises(OSError, match="No space left") as told:
        write_blocks(Path("/dev/full"), schema, [table_of(schema, 9)])
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, "/dev/full")
