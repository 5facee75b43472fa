"""Tables of every type a shard may have, and every reader's view of the file that holds them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.parquet_shards import ShardWriter
from pipeline.parquet_thrift import PHYSICAL

SCALARS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.float32())


def listed(value: pa.DataType, size: int = -1) -> pa.DataType:
    return pa.list_(pa.field("element", value, nullable=False), size)


def schema_of(kinds: Sequence[pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(f"c{k}", kind, nullable=False) for k, kind in enumerate(kinds)])


def cells(rng: np.random.Generator, kind: pa.DataType, count: int) -> pa.Array:
    """Values over the type's whole range, its ends among them, and runs of zeros."""
    dtype = PHYSICAL[kind].held
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


def write(where: Path | str | io.BytesIO, schema: pa.Schema, blocks: Iterable[pa.Table]) -> None:
    with ShardWriter(where, schema) as writer:
        for block in blocks:
            writer.write_table(block)


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


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def assert_read_back(path: Path, wanted: pa.Table, groups: Sequence[pa.Table]) -> None:
    """Through every reader, the file holds `wanted`, and `groups` as its row groups."""
    for memory_map in (False, True):
        whole = pq.read_table(path, memory_map=memory_map)
        assert whole.schema.equals(wanted.schema)
        assert whole.equals(wanted)
    with pq.ParquetFile(path, memory_map=True) as file:
        assert file.num_row_groups == len(groups)
        for k, group in enumerate(groups):
            assert file.read_row_group(k).equals(group)
            name = wanted.column_names[k % wanted.num_columns]
            assert file.read_row_group(k, columns=[name]).equals(group.select([name]))
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


READERS: list[Callable[[Path], Any]] = [
    lambda path: pq.read_table(path, memory_map=True),
    pl.read_parquet,
    lambda path: duckdb.sql(f"SELECT * FROM read_parquet('{path}')").fetchall(),
]
